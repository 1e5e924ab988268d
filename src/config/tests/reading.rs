//! What is refused, where, and in which words.

use super::*;
use crate::egress::Policy;

#[test]
fn defaults_are_those_of_the_contract() {
    let settings = file("{}\n").settings().clone();
    assert_eq!(settings, Settings::default());
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.limits.max_body_bytes, 67_108_864);
    assert_eq!(settings.scheduler.max_queued_bytes, 1_073_741_824);
    assert_eq!(settings.egress, Policy::Lan);
}

#[test]
fn every_fault_is_named_at_once_with_its_line() {
    let text = "\
# the gateway
server:
  listen: localhost:8080
  treads: 4
capacity: { max_in_flight: -1 }
groups:
  - name: research
    weight: 0
tenants:
  - weight: 5
  - name: acme
    weight: many
    weight: 7
    budget_cost_usd: 0.1234567890123
    keys:
      - name: prod
        secret: sk_short
models:
  - model_name: llama
    api_base: http://169.254.169.254/latest
    engine: vLLM
    expires_at: tomorrow
mcp_server: []
";
    assert_eq!(
        faults(text),
        [
            "obleth.yaml:3:11: server.listen: must be an IP address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"",
            "obleth.yaml:4:3: server.treads: is no field of this section",
            "obleth.yaml:5:28: capacity.max_in_flight: must be an integer from 0 to 1000000",
            "obleth.yaml:8:13: groups[0].weight: must be an integer from 1 to 1000000",
            "obleth.yaml:10:5: tenants[0].name: is required",
            "obleth.yaml:12:13: tenants[1].weight: must be an integer from 1 to 1000000",
            "obleth.yaml:13:5: tenants[1].weight: is given twice",
            "obleth.yaml:14:22: tenants[1].budget_cost_usd: must have at most 12 decimals",
            "obleth.yaml:17:17: tenants[1].keys[0].secret: must be sk_ and 64 lowercase hexadecimal digits",
            "obleth.yaml:20:15: models[0].api_base: link-local addresses are not reachable through the gateway",
            "obleth.yaml:21:13: models[0].engine: must be one of vllm, sglang, llama_cpp, ollama, tgi, openai, other",
            "obleth.yaml:22:5: models[0].expires_at: is no field of a model",
            "obleth.yaml:23:1: mcp_server: is no section of the configuration",
        ]
    );
}

#[test]
fn files_cut_short_are_faults() {
    let whole = "tenants:\n  - name: acme\n    weight: 500\n    tokens_per_minute: 100000\n";
    file(whole);
    // A cut at a line's end is a smaller file of its own; the watcher waits until nobody writes any more.
    for cut in (0..whole.len()).filter(|cut| !whole[..*cut].ends_with('\n')) {
        assert!(!faults(&whole[..cut]).is_empty(), "cut at {cut}");
    }
    for empty in ["", "\n", "# nothing\n", "---\n", "~\n"] {
        assert!(faults(empty).iter().any(|fault| fault.contains("is empty")), "{empty:?}");
    }
}

#[test]
fn text_that_is_no_yaml_has_a_line() {
    for (text, line) in [
        ("server:\n  listen: [1\nadmin: {}\n", "obleth.yaml:3:"),
        ("server:\n\tlisten: x\n", "obleth.yaml:2:"),
        ("a: *nothing\n", "obleth.yaml:1:"),
    ] {
        let faults = faults(text);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with(line), "{}", faults[0]);
    }
    assert!(faults("a: 1\n---\nb: 2\n")[0].contains("more than one document"));
    assert!(faults("server: !tag {}\n")[0].contains("server: must be a mapping"));
    assert!(faults("1: x\n")[0].contains("names of fields must be text"));
    assert!(faults("- a\n")[0].contains("must be a mapping"));
}

#[test]
fn faults_beyond_a_hundred_are_counted() {
    let text = format!("groups:\n{}", "  - { weight: 0 }\n".repeat(80));
    let faults = faults(&text);
    assert_eq!(faults.len(), 101);
    assert_eq!(faults[100], "obleth.yaml: and 60 more");
}

#[test]
fn expansion_reaches_every_text_and_shows_no_value() {
    let mut environment = Fake::with(&[
        ("KEY", &secret('a')),
        ("PORT", "8081"),
        ("WEIGHT", "7"),
        ("BAD", "hunter2"),
        ("UP", "s3cr3t-up"),
    ]);
    environment.files.insert("/run/key".to_owned(), format!("{}\n", secret('b')));
    let text = "\
server: { listen: \"127.0.0.1:${env:PORT}\" }
tenants:
  - name: acme
    weight: ${env:WEIGHT}
    description: costs $${not expanded}
    keys:
      - { name: one, secret: \"${env:KEY}\" }
      - { name: two, secret: \"${file:/run/key}\" }
models:
  - { model_name: m, api_base: \"http://127.0.0.1:9\", api_key: \"${env:UP}\" }
";
    let file = parse_in(&environment, text).unwrap();
    assert_eq!(file.settings().server.listen.port(), 8081);
    let plan = merge(None, &file, &Catalog::empty(64), Adoption::Never).unwrap();
    let mut catalog = Catalog::empty(64);
    plan.apply(&mut catalog).unwrap();
    let tenant = catalog.tenant_named("acme").unwrap();
    assert_eq!((tenant.weight.get(), tenant.description.as_str()), (7, "costs ${not expanded}"));
    let hasher = KeyHasher::new(None);
    for digit in ['a', 'b'] {
        let digest = hasher.digest(secret(digit).as_bytes()).unwrap();
        assert_eq!(catalog.principal(&digest).unwrap().key.prefix, secret(digit)[..18]);
    }
    let credential = catalog.model_named("m").unwrap().endpoints[0].credential.clone().unwrap();
    assert_eq!(credential.reference.as_deref(), Some("env:UP"), "a lone reference stays one");
    assert_eq!(credential.secret.as_deref(), Some("s3cr3t-up"));

    let shown = format!(
        "{file:?} {plan:?} {:?} {} {}",
        plan.applied(),
        plan.to_json(),
        plan.applied().to_text()
    );
    for hidden in [secret('a'), secret('b'), "s3cr3t".to_owned()] {
        assert!(!shown.contains(&hidden), "{shown}");
    }
    let bad = "tenants: [{ name: a, weight: \"${env:BAD}\", keys: [{ name: k, secret: \"${env:BAD}\" }] }]\n";
    let bad = format!("{:?}", parse_in(&environment, bad).unwrap_err());
    assert!(
        bad.contains("weight") && bad.contains("secret") && !bad.contains("hunter2"),
        "{bad}"
    );
}

#[test]
fn undefined_references_are_faults() {
    assert_eq!(
        faults("tenants:\n  - name: a\n    description: ${env:NOWHERE}\n    metadata:\n      x: ${file:/nowhere}\n"),
        [
            "obleth.yaml:3:18: tenants[0].description: refers to the environment variable NOWHERE, which is not set",
            "obleth.yaml:5:10: tenants[0].metadata.x: refers to the file /nowhere, which cannot be read: entity not found",
        ]
    );
    assert_eq!(
        faults("models: [{ model_name: m, api_base: \"http://h\", api_key: \"${env:NO}\" }]\n").len(),
        1
    );
    // As in the management API, a bare reference may be filled later.
    file("models: [{ model_name: m, api_base: \"http://h\", api_key: \"env:NO\" }]\n");
}

#[test]
fn environment_wins_over_file_and_flags_over_both() {
    let environment = Fake::with(&[
        ("OBLETH_SERVER_LISTEN", "127.0.0.1:1"),
        ("OBLETH_LEDGER_RETENTION_DAYS", "5"),
        ("OBLETH_LOG_LEVEL", "debug"),
    ]);
    let hasher = KeyHasher::new(None);
    let flags = [("server.listen", "127.0.0.1:2".to_owned())];
    let context = Context {
        environment: &environment,
        hasher: &hasher,
        flags: &flags,
    };
    let text = "server: { listen: \"127.0.0.1:3\" }\nledger: { retention_days: 9 }\nlog: { format: text }\n";
    let settings = parse(text, Path::new("f"), &context).unwrap().settings().clone();
    assert_eq!(settings.server.listen.port(), 2);
    assert_eq!(settings.ledger.retention_days, 5);
    assert_eq!((settings.log.level, settings.log.format), (LogLevel::Debug, LogFormat::Text));
    assert_eq!(
        Settings::default().differences(&settings),
        ["server.listen", "ledger.retention_days", "log.level", "log.format"]
    );

    let environment = Fake::with(&[("OBLETH_SERVER_THREADS", "few")]);
    let flags = [("server.port", "1".to_owned())];
    let context = Context {
        environment: &environment,
        hasher: &hasher,
        flags: &flags,
    };
    let faults: Vec<String> = without_file(&context).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "environment: OBLETH_SERVER_THREADS: must be an integer from 0 to 1024",
            "command line: server.port: is no setting",
        ]
    );
}

#[test]
fn names_aliases_and_secrets_are_unique_within_a_file() {
    let key = secret('a');
    let text = format!(
        "tenants:
  - {{ name: a, keys: [{{ name: k, secret: {key} }}, {{ name: k, secret: {} }}] }}
  - {{ name: b, keys: [{{ name: k, secret: {key} }}] }}
models:
  - {{ model_name: m, api_base: \"http://h\", aliases: [n, n] }}
  - {{ model_name: n, api_base: \"http://h\", aliases: [m, o] }}
  - {{ model_name: p, api_base: \"http://h\", aliases: [o] }}
",
        secret('b')
    );
    assert_eq!(
        faults(&text),
        [
            "obleth.yaml:2:66: tenants[0].keys[1].name: has the name of tenants[0].keys[0]"
                .replace(":66:", &format!(":{}:", 46 + key.len())),
            "obleth.yaml:3:23: tenants[1].keys[0].secret: has the secret of tenants[0].keys[0]".to_owned(),
            "obleth.yaml:5:57: models[0].aliases[1]: is given twice".to_owned(),
            "obleth.yaml:6:5: models[1].aliases: has an alias that is a name of models[0]".to_owned(),
            "obleth.yaml:7:5: models[2].aliases: has an alias that is a name of models[1]".to_owned(),
        ]
    );
}

#[test]
fn the_two_ways_to_give_addresses_and_secrets_exclude_each_other() {
    let hash = "0".repeat(64);
    let text = format!(
        "tenants:
  - name: a
    keys:
      - {{ name: k, secret: {}, secret_hash: \"{hash}\" }}
      - {{ name: l }}
      - {{ name: m, secret: {}, key_prefix: sk_ }}
      - {{ name: n, secret_hash: \"{}\" }}
models:
  - {{ model_name: m, api_base: \"http://h\", endpoints: [{{ url: \"http://h\" }}] }}
  - {{ model_name: n }}
  - {{ model_name: o, endpoints: [] }}
  - {{ model_name: p, endpoints: [{{ wait: 1 }}] }}
mcp_servers:
  - {{ name: Files, upstream_url: \"ftp://h\" }}
",
        secret('a'),
        secret('b'),
        "G".repeat(64)
    );
    let paths: Vec<String> = parse_in(&Fake::default(), &text)
        .unwrap_err()
        .iter()
        .map(|fault| format!("{}:{} {}", fault.line, fault.path, fault.message))
        .collect();
    assert_eq!(
        paths,
        [
            "4:tenants[0].keys[0].secret_hash must not be given beside secret",
            "5:tenants[0].keys[1].secret is required, or secret_hash is",
            "6:tenants[0].keys[2].key_prefix is only for keys with secret_hash",
            "7:tenants[0].keys[3].secret_hash must be 64 lowercase hexadecimal digits",
            "9:models[0].endpoints must not be given beside api_base",
            "10:models[1].api_base is required, or endpoints is",
            "11:models[2].endpoints must be a list of 1 to 256 entries",
            "12:models[3].endpoints[0].url is required",
            "12:models[3].endpoints[0].wait is no field of an endpoint",
            "14:mcp_servers[0].name must be 1 to 40 lowercase letters, digits and hyphens",
            "14:mcp_servers[0].upstream_url the scheme must be http or https",
        ]
    );
}

#[test]
fn upstreams_obey_the_files_own_egress_policy_and_listeners() {
    let faults = faults(
        "egress: { policy: public_only }
server: { listen: \"127.0.0.1:7001\" }
models:
  - { model_name: a, api_base: \"http://10.0.0.1\" }
  - { model_name: b, api_base: \"https://api.example.com\" }
mcp_servers:
  - { name: c, upstream_url: \"http://127.0.0.1:7001/mcp\" }
",
    );
    assert_eq!(
        faults,
        [
            "obleth.yaml:4:32: models[0].api_base: the egress policy allows public addresses only",
            "obleth.yaml:7:30: mcp_servers[0].upstream_url: this is the gateway's own listener",
        ]
    );
}

#[test]
fn the_editors_file_is_read_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("obleth.yaml");
    let hasher = KeyHasher::new(None);
    let context = Context {
        environment: &Process,
        hasher: &hasher,
        flags: &[],
    };
    let missing = load(&path, &context).unwrap_err();
    assert!(missing[0].to_string().contains("cannot be read"), "{}", missing[0]);
    std::fs::write(&path, [0x7b, 0xff, 0x7d, b'\n']).unwrap();
    assert!(load(&path, &context).unwrap_err()[0].message.contains("cannot be read"));
    std::fs::write(&path, " ".repeat(4 * 1024 * 1024 + 1)).unwrap();
    assert!(load(&path, &context).unwrap_err()[0].message.contains("larger than"));
    std::fs::write(&path, "capacity: { max_in_flight: 0 }\r\n").unwrap();
    assert_eq!(load(&path, &context).unwrap().max_in_flight(), Some(0));
}

#[test]
fn credentials_are_what_a_header_can_carry_or_references_that_are_not_the_gateways_own() {
    let environment = Fake::with(&[("OBLETH_ADMIN_TOKEN", "x"), ("UP", "x"), ("TWO", "a\nb")]);
    let with = |key: &str| {
        let text = format!("models: [{{ model_name: m, api_base: \"http://h\", api_key: {key} }}]\n");
        parse_in(&environment, &text).err().map_or(0, |faults| faults.len())
    };
    for good in [
        "env:UP",
        "\"${env:UP}\"",
        "\"Bearer ${env:UP}\"",
        "file:/run/key",
        "a-literal",
        "\"\"",
        "~",
    ] {
        assert_eq!(with(good), 0, "{good}");
    }
    for bad in [
        "env:OBLETH_ADMIN_TOKEN",
        "\"${env:OBLETH_ADMIN_TOKEN}\"",
        "env:1",
        "\"env:\"",
        "file:run/key",
        "stored:12",
        "\"${env:TWO} \"",
        "7",
        "\" x\"",
        "ü",
    ] {
        assert_eq!(with(bad), 1, "{bad}");
    }
}

#[test]
fn what_belongs_together_is_asked_for_together() {
    assert_eq!(
        faults(
            "server: { tls_cert_file: /c }
models:
  - { model_name: m, api_base: \"http://h\", tls_client_key_file: /k }
  - { model_name: n, endpoints: [{ url: \"http://h\" }, { url: \"http://h/\" }] }
"
        ),
        [
            "obleth.yaml:1:1: server: tls_cert_file and tls_key_file must be given together",
            "obleth.yaml:3:5: models[0].tls_client_cert_file: is required beside tls_client_key_file",
            "obleth.yaml:4:62: models[1].endpoints[1].url: is given twice",
        ]
    );
}

#[test]
fn the_traces_headers_are_pointed_at_and_never_read_into_the_settings() {
    let environment = Fake::with(&[("TOKEN", "authorization=s3cr3t")]);
    for written in [
        "env:TOKEN",
        "\"${env:TOKEN}\"",
        "file:/run/token",
        "\"${file:/run/token}\"",
        "env:NOT_SET",
    ] {
        let file = parse_in(&environment, &format!("traces: {{ headers: {written} }}\n")).unwrap();
        let reference = file.settings().traces.headers.clone().unwrap();
        assert_eq!(reference, written.trim_matches(['"', '$', '{', '}']), "{written}");
    }
    for written in [
        "authorization=s3cr3t",
        "\"x${env:TOKEN}\"",
        "env:OBLETH_ADMIN_TOKEN",
        "file:token",
        "7",
    ] {
        let fault = parse_in(&environment, &format!("traces: {{ headers: {written} }}\n")).unwrap_err();
        let fault = fault[0].to_string();
        assert!(fault.contains("must be env:NAME") && !fault.contains("s3cr3t"), "{fault}");
    }
}

#[test]
fn a_ratio_is_a_decimal_from_nothing_to_all() {
    for (written, millionths) in [
        ("0", 0),
        ("1", 1_000_000),
        ("1.0", 1_000_000),
        ("0.25", 250_000),
        ("\"0.000001\"", 1),
    ] {
        let file = file(&format!("traces: {{ sample_ratio: {written} }}\n"));
        assert_eq!(file.settings().traces.sample_ratio.millionths(), millionths, "{written}");
    }
    for written in ["1.1", "2", "-0.5", "0.0000001", "1e-3", ".5", "half", "\"0.+1\"", "[]"] {
        let faults = faults(&format!("traces: {{ sample_ratio: {written} }}\n"));
        assert!(
            faults.len() == 1 && faults[0].contains("must be a number from 0 to 1"),
            "{written}: {faults:?}"
        );
    }
}
