//! The roof: builds the floors bottom-up, opens the doors, and takes it all down again.
//!
//! The gateway owns its start and its end. Pingora's own server would sleep through the whole grace period after a
//! SIGTERM; here the process ends within a second of its last request (`life`), or hands over to the next one (`upgrade`).

mod data_plane;
mod descriptors;
mod drain;
mod ledger;
mod life;
mod management;
mod observe;
mod process;
mod reload;
mod scrape;
mod settings;
mod supervisor;
mod tls;
mod traces;
mod upgrade;

pub use settings::{Settings, unsupported};

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tracing::info;

use crate::admin::{self, Readiness};
use crate::admission::Admission;
use crate::answers::{self, Answers};
use crate::catalog::{Catalog, Live};
use crate::config;
use crate::credential::KeyHasher;
use crate::limits::{self, Failures, Limits};
use crate::metering::{self, Meter};
use crate::proxy::door::Closing;
use crate::proxy::{Active, Budget, Gateway, McpDoor, Refusals};
use crate::store::{self, Store};
use crate::telemetry::{RequestLog, Requests, Traces};
use crate::upstreams::{self, Upstreams};
use life::Life;
use reload::{ForTheApi, Reloader};
use scrape::Scrape;
use upgrade::{Inheritance, Management, Predecessor};

/// Threads of the management API: operators are few, and must never slow the data plane.
const MANAGEMENT_THREADS: usize = 2;

/// Why the gateway did not start. Each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A listener's certificate or key cannot be used.
    #[error("cannot speak TLS: {0}")]
    Tls(String),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] metering::OpenError),
    /// What was spent before cannot be read, so budgets would start anew.
    #[error("the ledger cannot be read: {0}")]
    Past(String),
    /// The configuration asks for what cannot be, or does not fit the store.
    #[error("the configuration has {} faults", .0.len())]
    Configuration(Vec<config::Fault>),
    /// The configuration file is good and could not be stored.
    #[error("the configuration file cannot be merged into the store: {0}")]
    Merge(String),
    /// The admin token cannot be used.
    #[error(transparent)]
    AdminToken(admin::UnusableToken),
    /// There is nothing to take over from the process that started this one.
    #[error("cannot take over from the process before: {0}")]
    Upgrade(String),
    /// An upgrade has failed half-way, and the store is another process's. This one came after serving; a new start may do better.
    #[error("{0}")]
    Orphaned(String),
    /// Traces cannot be sent as the configuration has it.
    #[error("cannot trace: {0}")]
    Traces(String),
    /// The system gives no thread or no signal handler.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// Where the gateway listens, once it does.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// The data plane.
    pub data: SocketAddr,
    /// The management API.
    pub management: SocketAddr,
    /// `http` or `https`, of the data plane.
    pub data_scheme: &'static str,
    /// `http` or `https`, of the management API.
    pub management_scheme: &'static str,
}

/// Runs the gateway until a signal ends it. `ready` is called when both doors are open.
///
/// # Errors
/// [`StartError`], before anything is served.
pub fn run(settings: &Settings, ready: impl FnOnce(Listening)) -> Result<(), StartError> {
    // Named points in the phases, set by `FAILPOINTS`; in a build without the feature there are none.
    let _points = fail::FailScenario::setup();
    let faults = unsupported(&settings.file);
    if !faults.is_empty() {
        return Err(StartError::Configuration(faults));
    }
    let boot = settings.boot();
    let shares = descriptors::Shares::of(boot.limits.max_connections);
    let mut inheritance = Inheritance::from_environment()?;
    let mut listener = |address| {
        inheritance
            .as_mut()
            .and_then(|inheritance| inheritance.socket(address))
            .map_or_else(|| bind(address), Ok)
    };
    let data = listener(boot.server.listen)?;
    let management = listener(boot.admin.listen)?;
    let (data_tls, management_tls) = (
        secured(&boot.server.tls, &["h2", "http/1.1"])?,
        secured(&boot.admin.tls, &["http/1.1"])?,
    );
    let listening = Listening {
        data: data.local_addr()?,
        management: management.local_addr()?,
        data_scheme: scheme(data_tls.as_ref()),
        management_scheme: scheme(management_tls.as_ref()),
    };
    let (data_tls, data_certificate) = data_tls.unzip();
    let (management_tls, management_certificate) = management_tls.unzip();
    let doors = [listening.data, listening.management];

    let options = store::Options {
        sealing_key: settings.encryption_key,
        max_in_flight: settings.max_in_flight(),
        ..store::Options::new(&boot.store.path)
    };
    if let Some(inheritance) = &mut inheritance {
        Store::examine(&options)?;
        inheritance.await_store()?;
    }
    let (store, _) = Store::open(options)?;
    let management_runtime = runtime("management", MANAGEMENT_THREADS)?;
    let reloader = Reloader::new(Arc::clone(&store), settings);
    reloader.start(&settings.file, management_runtime.handle())?;
    let floors = Floors::build(settings, Catalog::clone(&store.catalog()), &store, &doors)?;
    store.follow(Arc::clone(&floors.live));

    let readiness = Readiness::default();
    let configuration = Arc::new(ForTheApi(Arc::clone(&reloader)));
    let certificates: Vec<_> = [("data", data_certificate), ("management", management_certificate)]
        .into_iter()
        .filter_map(|(listener, certificate)| Some((listener, certificate?)))
        .collect();
    let followed = certificates.iter().map(|(_, certificate)| certificate.clone()).collect();
    let scrape = Scrape::of(&floors, Arc::clone(&store), Arc::clone(&reloader), readiness.clone(), certificates);
    let router = management::router(
        Arc::clone(&store),
        &floors,
        settings,
        doors,
        readiness.clone(),
        configuration,
        scrape,
    )?;
    let data_runtime = runtime("data-plane", threads(boot.server.threads))?;
    let signals = data_runtime.block_on(async { drain::Signals::take() })?;
    let inherited = match inheritance {
        Some(inheritance) => inheritance.take_over(&floors, data_runtime.handle())?,
        None => false,
    };
    if !inherited {
        ledger::remember(&store, &floors.limits)?;
    }
    let management = Management::open(
        management,
        router,
        shares.operators,
        management_tls,
        management_runtime.handle().clone(),
    )?;
    let (stop_data, stops) = watch::channel(false);
    let (end_data, ends) = watch::channel(false);
    let serving = data_runtime.spawn(data_plane::run(
        floors.gateway(settings, listening.data),
        data.try_clone()?,
        data_plane::Service {
            threads: threads(boot.server.threads),
            kept_connections: shares.kept,
            door: settings.door(shares.clients),
        },
        data_tls,
        Closing { stops, ends },
    ));
    let following = reloader.follow(settings.file.digest(), &management_runtime)?;
    management_runtime.spawn(tls::follow(followed));
    readiness.set(true);
    ready(listening);
    supervisor::ready(listening);
    data_runtime.spawn(supervisor::lives(management_runtime.handle().clone()));
    info!(data = %listening.data, management = %listening.management, "listening");

    Life {
        floors,
        store,
        reloader,
        readiness,
        management,
        following,
        data,
        serving,
        stop_data,
        end_data,
        signals,
        configured: [boot.server.listen, boot.admin.listen],
        drain_timeout: settings.drain_timeout(),
    }
    .live(data_runtime, management_runtime)
}

/// The engines, and what they share.
struct Floors {
    live: Arc<Live>,
    admission: Arc<Admission>,
    mcp_slots: Arc<Admission>,
    limits: Arc<Limits>,
    answers: Arc<Answers>,
    upstreams: Arc<Upstreams>,
    meter: Arc<Meter>,
    active: Arc<Active>,
    budget: Arc<Budget>,
    failures: FailedLogins,
    refusals: Arc<Refusals>,
    requests: Arc<Requests>,
    request_log: RequestLog,
    traces: Traces,
    hasher: KeyHasher,
    predecessor: Arc<Predecessor>,
}

/// Failed authentications at each door; a flood at one must not damp the other.
struct FailedLogins {
    data: Arc<Failures>,
    management: Arc<Failures>,
}

impl Floors {
    /// Builds the engines and lets them follow the catalog.
    fn build(settings: &Settings, catalog: Catalog, store: &Arc<Store>, own_listeners: &[SocketAddr]) -> Result<Self, StartError> {
        let admission = Admission::new(settings.scheduler());
        let upstreams = Upstreams::new(upstreams::Settings {
            egress: settings.boot().egress,
            own_listeners: own_listeners.to_vec(),
            ..upstreams::Settings::default()
        });
        let limits = Limits::new(limits::Settings { epoch: Instant::now() });
        let answers = Answers::new(answers::Settings::default());
        let mcp_slots = Admission::for_mcp_servers(settings.scheduler());
        let mut live = Live::new(Arc::new(catalog));
        live.subscribe({
            let slots = Arc::clone(&mcp_slots);
            move |catalog| slots.apply(catalog)
        });
        live.subscribe({
            let admission = Arc::clone(&admission);
            move |catalog| admission.apply(catalog)
        });
        live.subscribe({
            let limits = Arc::clone(&limits);
            move |catalog| limits.apply(catalog)
        });
        live.subscribe({
            let upstreams = Arc::clone(&upstreams);
            move |catalog| upstreams.apply(catalog)
        });
        upstreams.on_capacity({
            let admission = Arc::clone(&admission);
            Box::new(move |model, cap| admission.set_model_cap(model, cap))
        });
        // The last: what it keeps must not outlive what the others have let go.
        live.subscribe({
            let answers = Arc::clone(&answers);
            move |catalog| answers.apply(catalog)
        });
        let requests = Arc::new(Requests::new(settings.metrics()));
        live.subscribe({
            let requests = Arc::clone(&requests);
            move |catalog| requests.apply(catalog)
        });
        upstreams.start()?;
        let live = Arc::new(live);
        let request_log = RequestLog::start(settings.request_log())?;
        let observer = observe::rows(Arc::clone(&requests), request_log.clone(), Arc::clone(&live));
        let meter = ledger::open(settings, store, observer)?;
        Ok(Self {
            live,
            admission,
            mcp_slots,
            limits,
            answers,
            upstreams,
            meter,
            active: Arc::default(),
            failures: FailedLogins {
                data: Arc::new(Failures::new("data")),
                management: Arc::new(Failures::new("management")),
            },
            budget: Budget::new(settings.boot().limits.max_buffered_bytes),
            refusals: Arc::default(),
            requests,
            request_log,
            traces: traces::start(settings)?,
            hasher: settings.hasher.clone(),
            predecessor: Arc::default(),
        })
    }

    fn gateway(&self, settings: &Settings, listening: SocketAddr) -> Gateway {
        Gateway {
            live: Arc::clone(&self.live),
            hasher: self.hasher.clone(),
            admission: Arc::clone(&self.admission),
            upstreams: Arc::clone(&self.upstreams),
            meter: Arc::clone(&self.meter),
            active: Arc::clone(&self.active),
            budget: Arc::clone(&self.budget),
            refusals: Arc::clone(&self.refusals),
            request_log: self.request_log.clone(),
            traces: self.traces.clone(),
            limits: Arc::clone(&self.limits),
            failures: Arc::clone(&self.failures.data),
            answers: Arc::clone(&self.answers),
            mcp: McpDoor::new(
                Arc::clone(&self.mcp_slots),
                settings.encryption_key.as_ref(),
                settings.boot().limits.max_listening_streams,
                listening.ip().is_loopback(),
            ),
            bounds: settings.bounds(),
        }
    }
}

fn secured(files: &config::ListenerTls, protocols: &[&str]) -> Result<Option<(tls::Acceptor, tls::Followed)>, StartError> {
    tls::acceptor(files, protocols).map_err(StartError::Tls)
}

fn scheme<T>(tls: Option<&T>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Bind { address, source })
}

fn threads(asked: usize) -> usize {
    if asked > 0 {
        asked
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

fn runtime(name: &str, threads: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .enable_all()
        .build()
}
