//! Where traces go: what the configuration says, else what OpenTelemetry's own variables say.

use super::{Settings, StartError};
use crate::telemetry::Traces;

/// Starts the exporter, if there is a collector to send to.
///
/// # Errors
/// [`StartError::Traces`]
#[cfg(feature = "otel")]
pub(super) fn start(settings: &Settings) -> Result<Traces, StartError> {
    use std::time::Duration;

    use crate::config::{Environment, Process};
    use crate::telemetry::traces::{self, Collector};
    use otel::{endpoint, headers, resource};

    let environment = &Process;
    let configured = &settings.boot().traces;
    let refused = |why: traces::Unusable| StartError::Traces(why.to_string());
    let is_off = environment
        .var("OTEL_SDK_DISABLED")
        .is_some_and(|word| word.eq_ignore_ascii_case("true"));
    let Some(url) = endpoint(configured, environment)?.filter(|_| !is_off) else {
        return Ok(Traces::default());
    };
    let headers = headers(configured, environment)?;
    let settings = traces::Settings {
        collector: Collector::new(&url, &headers).map_err(refused)?,
        sample_millionths: configured.sample_ratio.millionths(),
        queued_max: usize::try_from(configured.max_queued).unwrap_or(usize::MAX),
        timeout: Duration::from_millis(configured.timeout_ms),
        tenant_label: settings.metrics().tenant_label,
        resource: resource(environment),
    };
    Traces::start(settings).map_err(refused)
}

/// Nothing: this build has none, and settings that ask for some were refused.
#[cfg(not(feature = "otel"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
pub(super) fn start(_settings: &Settings) -> Result<Traces, StartError> {
    Ok(Traces)
}

#[cfg(feature = "otel")]
mod otel {
    use url::Url;

    use super::StartError;
    use crate::config::{Environment, Traces, resolve};

    /// Where the collector takes traces, below its base address (OTLP/HTTP).
    const PATH: &str = "v1/traces";

    /// The setting and `OTEL_EXPORTER_OTLP_ENDPOINT` are base addresses, the variable for traces is the whole one.
    pub(super) fn endpoint(configured: &Traces, environment: &dyn Environment) -> Result<Option<Url>, StartError> {
        let given = |name: &str| environment.var(name).filter(|text| !text.trim().is_empty());
        let read =
            |name: &str, text: &str| Url::parse(text.trim()).map_err(|error| StartError::Traces(format!("{name} is no URL: {error}")));
        if let Some(url) = &configured.endpoint {
            return below(url.clone()).map(Some);
        }
        if let Some(text) = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
            return read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &text).map(Some);
        }
        match given("OTEL_EXPORTER_OTLP_ENDPOINT") {
            Some(text) => below(read("OTEL_EXPORTER_OTLP_ENDPOINT", &text)?).map(Some),
            None => Ok(None),
        }
    }

    fn below(mut base: Url) -> Result<Url, StartError> {
        let no_base = || StartError::Traces("the traces' endpoint must be an http or https URL".to_owned());
        base.path_segments_mut()
            .map_err(|()| no_base())?
            .pop_if_empty()
            .extend(PATH.split('/'));
        Ok(base)
    }

    pub(super) fn headers(configured: &Traces, environment: &dyn Environment) -> Result<String, StartError> {
        if let Some(reference) = &configured.headers {
            let unset = || {
                StartError::Traces(format!(
                    "traces.headers refers to {reference}, which is not set, not there, or empty"
                ))
            };
            return resolve(environment, reference).map(|headers| headers.to_string()).ok_or_else(unset);
        }
        let both = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
        Ok(both.into_iter().find_map(|name| environment.var(name)).unwrap_or_default())
    }

    /// What the operator says of this process.
    pub(super) fn resource(environment: &dyn Environment) -> String {
        let name = environment.var("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
        let name = name.map(|name| format!("service.name={name},"));
        // The variable for the name wins over the attribute: the first of two is taken.
        name.unwrap_or_default() + &environment.var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()
    }

    #[cfg(test)]
    mod tests {
        use std::io;

        use super::*;

        struct Known(&'static [(&'static str, &'static str)]);

        impl Environment for Known {
            fn var(&self, name: &str) -> Option<String> {
                self.0
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| (*value).to_owned())
            }

            fn file(&self, path: &str) -> io::Result<String> {
                if path == "/token" {
                    Ok("authorization=Bearer 1\n".to_owned())
                } else {
                    Err(io::ErrorKind::NotFound.into())
                }
            }
        }

        fn traces(endpoint: Option<&str>, headers: Option<&str>) -> Traces {
            Traces {
                endpoint: endpoint.map(|url| url.parse().unwrap()),
                headers: headers.map(str::to_owned),
                ..crate::config::Settings::default().traces
            }
        }

        #[test]
        fn the_configuration_wins_then_the_variable_for_traces_then_the_general_one() {
            const GENERAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318/base/");
            const TRACES: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/all");
            let cases: [(Option<&str>, &'static [_], Option<&str>); 5] = [
                (Some("http://own:1"), &[GENERAL, TRACES], Some("http://own:1/v1/traces")),
                (None, &[GENERAL, TRACES], Some("http://traces/all")),
                (None, &[GENERAL], Some("http://general:4318/base/v1/traces")),
                (None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None),
                (None, &[], None),
            ];
            for (own, variables, expected) in cases {
                let url = endpoint(&traces(own, None), &Known(variables)).unwrap();
                assert_eq!(url.map(String::from).as_deref(), expected);
            }
            for bad in ["collector:4318", "mailto:a@b", "nothing"] {
                let bad: &'static [(&str, &str)] = Box::leak(Box::new([("OTEL_EXPORTER_OTLP_ENDPOINT", bad)]));
                assert!(endpoint(&traces(None, None), &Known(bad)).is_err(), "{bad:?}");
            }
        }

        #[test]
        fn headers_come_from_where_the_configuration_points_or_from_the_variables() {
            let variables = Known(&[("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("X", "b=2")]);
            let headers = |reference| headers(&traces(None, reference), &variables).map_err(|why| why.to_string());
            assert_eq!(headers(None).unwrap(), "a=1");
            assert_eq!(headers(Some("env:X")).unwrap(), "b=2");
            assert_eq!(headers(Some("file:/token")).unwrap(), "authorization=Bearer 1");
            assert!(headers(Some("file:/nothing")).unwrap_err().contains("file:/nothing"));
            let named = Known(&[("OTEL_SERVICE_NAME", "edge"), ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=p")]);
            assert_eq!(resource(&named), "service.name=edge,k8s.pod.name=p");
        }
    }
}
