//! Credentials of upstreams on disk.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use url::Url;

use super::*;
use crate::catalog::{Credential, McpServer};
use crate::id::McpServerId;

const KEY: [u8; 32] = [42; 32];
const PLAINTEXT: &str = "Bearer canary-4f9d1c";

fn server(name: &str, auth_header: Credential) -> McpServer {
    McpServer {
        id: McpServerId::mint(),
        name: name.to_owned(),
        upstream_url: Url::parse("http://127.0.0.1:7000/mcp").unwrap(),
        auth_header: Some(auth_header),
        auth_header_name: "Authorization".to_owned(),
        enabled: true,
        allowed_tools: None,
        denied_tools: Vec::new(),
        allowed_tenants: None,
        allowed_origins: Vec::new(),
        idle_timeout_secs: 300,
        max_in_flight: None,
        provenance: Provenance::default(),
    }
}

fn value(secret: &str) -> Credential {
    Credential {
        reference: None,
        secret: Some(secret.into()),
    }
}

fn reference(reference: &str) -> Credential {
    Credential {
        reference: Some(reference.to_owned()),
        secret: Some("as the caller resolved it".into()),
    }
}

async fn put(store: &Store, server: McpServer) -> Result<Done<()>, ChangeError<Conflict>> {
    store
        .change(author(), |catalog, _| catalog.put_mcp_server(server).map(Change::new))
        .await
}

fn with_key(key: [u8; 32]) -> Scratch {
    Scratch::with(|options| options.sealing_key = Some(key))
}

/// Whether any file of the store holds the bytes.
fn holds(directory: &Path, needle: &str) -> bool {
    std::fs::read_dir(directory).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        memchr::memmem::find(&bytes, needle.as_bytes()).is_some()
    })
}

#[tokio::test]
async fn a_stored_value_is_in_no_file_and_comes_back() {
    let scratch = with_key(KEY);
    put(&scratch.store, server("files", value(PLAINTEXT))).await.unwrap();
    let directory = scratch.options.path.parent().unwrap().to_owned();
    assert!(holds(&directory, "files"), "the search finds what is there");
    assert!(!holds(&directory, PLAINTEXT), "in the WAL");
    let scratch = scratch.reopened();
    assert!(!holds(&directory, PLAINTEXT), "in the database");
    let catalog = scratch.store.catalog();
    assert_eq!(catalog.mcp_server_named("files").unwrap().auth_header, Some(value(PLAINTEXT)));
}

#[tokio::test]
async fn the_same_value_is_sealed_differently_each_time() {
    let scratch = with_key(KEY);
    put(&scratch.store, server("one", value(PLAINTEXT))).await.unwrap();
    put(&scratch.store, server("two", value(PLAINTEXT))).await.unwrap();
    let sealed = scratch.store.read(Duration::from_secs(5), |connection| {
        connection.query_row("SELECT count(DISTINCT auth_header) FROM mcp_servers", [], |row| {
            row.get::<_, i64>(0)
        })
    });
    assert_eq!(sealed.await, Ok(2));
}

#[tokio::test]
async fn without_a_key_values_are_refused_and_references_are_not() {
    let scratch = Scratch::new();
    let refused = put(&scratch.store, server("files", value(PLAINTEXT))).await.unwrap_err();
    assert_eq!(refused, ChangeError::NoSealingKey);
    assert!(scratch.store.catalog().mcp_servers().is_empty());
    put(&scratch.store, server("files", reference("env:OBLETH_TEST_UNSET")))
        .await
        .unwrap();
    assert_eq!(scratch.store.catalog().mcp_servers().len(), 1);
}

#[tokio::test]
async fn a_store_with_sealed_values_opens_only_with_their_key() {
    let scratch = with_key(KEY);
    put(&scratch.store, server("files", value(PLAINTEXT))).await.unwrap();
    let (mut options, _dir) = scratch.closed();
    options.sealing_key = Some([43; 32]);
    let wrong = Store::open(options.clone()).unwrap_err();
    assert!(matches!(wrong, OpenError::WrongSealingKey { .. }), "{wrong}");
    assert!(wrong.to_string().contains(r#"mcp_server "files""#), "{wrong}");
    options.sealing_key = None;
    let none = Store::open(options.clone()).unwrap_err();
    assert!(matches!(none, OpenError::NoSealingKey { .. }), "{none}");
    options.sealing_key = Some(KEY);
    Store::open(options).unwrap();
}

#[tokio::test]
async fn a_sealed_value_that_is_moved_or_altered_stays_shut() {
    let seed = 3;
    let mut random = StdRng::seed_from_u64(seed);
    let flip = random.random_range(10..60);
    for damage in [
        "UPDATE mcp_servers SET auth_header = (SELECT auth_header FROM mcp_servers WHERE name = 'one') WHERE name = 'two'".to_owned(),
        format!(
            "UPDATE mcp_servers SET auth_header = substr(auth_header, 1, {flip}) ||
             CASE substr(auth_header, {flip} + 1, 1) WHEN '0' THEN '1' ELSE '0' END || substr(auth_header, {flip} + 2)"
        ),
        r#"UPDATE mcp_servers SET auth_header = '{"sealed":"00"}'"#.to_owned(),
        r#"UPDATE mcp_servers SET auth_header = '{"sealed":"ß"}'"#.to_owned(),
    ] {
        let scratch = with_key(KEY);
        put(&scratch.store, server("one", value("first"))).await.unwrap();
        put(&scratch.store, server("two", value("second"))).await.unwrap();
        let (options, _dir) = scratch.closed();
        let raw = Connection::open(&options.path).unwrap();
        raw.execute_batch(&damage).unwrap();
        drop(raw);
        let error = Store::open(options).unwrap_err();
        assert!(matches!(error, OpenError::WrongSealingKey { .. }), "seed {seed}, {damage}: {error}");
    }
}

#[tokio::test]
async fn references_are_stored_as_text_and_resolved_anew_at_each_opening() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "Bearer first\n").unwrap();
    let reference_text = format!("file:{}", secret.display());
    let scratch = Scratch::new();
    assert_eq!(scratch.store.resolve(&reference_text).as_deref(), Some("Bearer first"));
    put(&scratch.store, server("files", reference(&reference_text))).await.unwrap();
    assert!(!holds(scratch.options.path.parent().unwrap(), "as the caller resolved it"));
    let header = |scratch: &Scratch| {
        scratch
            .store
            .catalog()
            .mcp_server_named("files")
            .unwrap()
            .auth_header
            .clone()
            .unwrap()
    };
    std::fs::write(&secret, "Bearer second").unwrap();
    let scratch = scratch.reopened();
    assert_eq!(header(&scratch).reference, Some(reference_text));
    assert_eq!(header(&scratch).secret.as_deref(), Some("Bearer second"));
    std::fs::remove_file(&secret).unwrap();
    let scratch = scratch.reopened();
    assert_eq!(header(&scratch).secret, None, "it opens all the same; requests are refused");
}

#[test]
fn what_is_no_reference_resolves_to_nothing() {
    let scratch = Scratch::new();
    let dir = tempfile::tempdir().unwrap();
    let huge = dir.path().join("huge");
    std::fs::write(&huge, vec![b'x'; 64 * 1024 + 1]).unwrap();
    for reference in [
        "",
        "env:",
        "env:OBLETH_TEST_UNSET",
        "file:",
        "vault:x",
        "PATH",
        &format!("file:{}", huge.display()),
    ] {
        assert_eq!(scratch.store.resolve(reference), None, "{reference:?}");
    }
    assert!(scratch.store.resolve("env:PATH").is_some());
}
