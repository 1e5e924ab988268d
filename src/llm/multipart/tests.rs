//! Forms as browsers, curl and SDKs write them, and as only an attacker would.

use bytes::Bytes;

use super::*;
use crate::llm::{Extras, Route, read, rewrite};

const KIND: &str = "multipart/form-data; boundary=XyZ";

fn field(name: &str, value: &str) -> String {
    format!("--XyZ\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(bytes: &str) -> String {
    format!("--XyZ\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n{bytes}\r\n")
}

fn form(parts: &[String]) -> Bytes {
    Bytes::from(format!("{}--XyZ--\r\n", parts.concat()))
}

fn parse(body: &Bytes) -> Result<Parsed, BodyFault> {
    read(Route::AudioTranscriptions, Some(KIND), body)
}

#[track_caller]
fn refused(body: &Bytes, code: &str) {
    let fault = parse(body).unwrap_err();
    assert_eq!(fault.code(), code, "{fault:?}");
}

#[test]
fn the_model_is_found_in_any_position_and_only_it_changes() {
    let (model, audio, prompt) = (
        field("model", "whisper"),
        file("RIFF\r\n--Xy not a boundary\r\n\0"),
        field("prompt", "names"),
    );
    for parts in [[&model, &audio, &prompt], [&audio, &model, &prompt], [&prompt, &audio, &model]] {
        let body = form(&parts.map(String::clone));
        let parsed = parse(&body).unwrap();
        assert_eq!(
            (parsed.model.as_str(), parsed.stream, parsed.text_bytes),
            ("whisper", false, 340 + 5)
        );
        let renamed = rewrite(
            &body,
            &parsed,
            "openai/whisper-large",
            &Extras {
                priority: Some(1),
                cache_salt: None,
            },
        );
        let expected = String::from_utf8(body.to_vec())
            .unwrap()
            .replace("\r\n\r\nwhisper\r\n", "\r\n\r\nopenai/whisper-large\r\n");
        assert_eq!(renamed, expected);
        assert_eq!(parse(&renamed).unwrap().model, "openai/whisper-large");
        assert_eq!(rewrite(&body, &parsed, "whisper", &Extras::default()).as_ptr(), body.as_ptr());
    }
}

#[test]
fn boundaries_are_read_by_the_rules_of_quoting() {
    let good = [
        ("multipart/form-data; boundary=abc", "abc"),
        ("Multipart/Form-Data;BOUNDARY=\"abc\"; charset=utf-8", "abc"),
        ("multipart/form-data; charset=\"a;b\"; boundary=\"a b:c\"", "a b:c"),
        ("multipart/form-data; boundary=\"a\\bc\"", "abc"),
        (
            "multipart/form-data; boundary=----WebKitFormBoundaryx'()+_,-./:=?",
            "----WebKitFormBoundaryx'()+_,-./:=?",
        ),
    ];
    for (kind, expected) in good {
        assert_eq!(boundary(kind).unwrap(), expected.as_bytes(), "{kind}");
    }
    let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
    let bad = [
        "",
        "application/json",
        "multipart/mixed; boundary=a",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=\"abc",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=\"a \"",
        "multipart/form-data; boundary=a\"b",
        "multipart/form-data; boundary=é",
        "multipart/form-data; boundary=\"a\" b",
        long.as_str(),
    ];
    for kind in bad {
        assert!(boundary(kind).unwrap_err().is_unsupported_media_type(), "{kind}");
    }
}

#[test]
fn a_model_is_named_once_and_plainly() {
    refused(&form(&[field("prompt", "x")]), "missing_model");
    refused(&form(&[field("model", "")]), "missing_model");
    refused(&form(&[field("model", "a"), field("model", "b")]), "duplicate_key");
    refused(
        &form(&[
            field("model", "a"),
            "--XyZ\r\ncontent-disposition:form-data;name=model\r\n\r\nb\r\n".to_owned(),
        ]),
        "duplicate_key",
    );
    refused(
        &form(&["--XyZ\r\nContent-Disposition: form-data; name=model; filename=m\r\n\r\na\r\n".to_owned()]),
        "invalid_value",
    );
    let coded = "--XyZ\r\nContent-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: base64\r\n\r\nYQ==\r\n";
    refused(&form(&[coded.to_owned()]), "invalid_value");
}

#[test]
fn forms_that_two_readers_could_read_in_two_ways_are_refused() {
    let good = String::from_utf8(form(&[field("model", "m")]).to_vec()).unwrap();
    assert!(
        parse(&Bytes::from(format!("\r\n{good}after"))).is_ok(),
        "line ends before, anything after"
    );
    assert!(
        parse(&Bytes::from(good.replace("--XyZ\r\n", "--XyZ \t\r\n"))).is_ok(),
        "padding after a boundary"
    );
    let bad = [
        String::new(),
        format!("preamble\r\n{good}"),
        good.replace("\r\n", "\n"),
        good.replace("--XyZ--\r\n", ""),
        good.replace("--XyZ\r\n", "--XyZA\r\n"),
        good.replace("form-data", "attachment"),
        good.replace("; name=\"model\"", ""),
        good.replace("name=\"model\"", "name=\"model\"; name=\"x\""),
        good.replace("name=\"model\"", "name=\"x\"; name*=utf-8''model"),
        good.replace("name=\"model\"", "name*0=mo; name*1=del"),
        good.replace("\r\n\r\nm", "\r\nContent-Disposition: form-data; name=x\r\n\r\nm"),
        good.replace("\r\n\r\nm", &format!("\r\nX: {}\r\n\r\nm", "x".repeat(PART_HEAD_MAX))),
        good.replace("Content-Disposition", "Content Disposition"),
    ];
    for body in bad {
        refused(&Bytes::from(body), "invalid_multipart");
    }
    refused(&form(&vec![field("x", ""); PARTS_MAX + 1]), "invalid_multipart");
}
