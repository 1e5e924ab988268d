//! The exporter against collectors that are dead, silent, busy, or say no.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender as Told, channel};

use super::*;
use crate::telemetry::traces::{Kind, Span, SpanId};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(60);

fn finished() -> Finished {
    let context = Context::of(None, |_| true);
    let span = Span {
        id: SpanId::mint(),
        parent: None,
        name: Cow::Borrowed("one"),
        kind: Kind::Server,
        from: 1,
        to: 2,
        attributes: Vec::new(),
        failed: false,
    };
    Finished {
        context,
        spans: vec![span],
    }
}

fn settings(collector: SocketAddr, queued_max: usize) -> Settings {
    let url = format!("http://{collector}/v1/traces").parse().unwrap();
    Settings {
        collector: Collector::new(&url, "").unwrap(),
        sample_millionths: 1_000_000,
        queued_max,
        timeout: LONG,
        tenant_label: TenantLabel::Name,
        resource: String::new(),
    }
}

/// A collector that answers each request in turn as it is told to, and tells of each that came.
fn collector() -> (SocketAddr, Told<&'static str>, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, answers) = channel::<&str>();
    let (came, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut got = Vec::new();
            let mut piece = [0; 4096];
            while !is_whole(&got) {
                match stream.read(&mut piece) {
                    Ok(count @ 1..) => got.extend_from_slice(&piece[..count]),
                    Ok(0) | Err(_) => break,
                }
            }
            let _ = came.send(());
            let Ok(answer) = answers.recv() else { return };
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (addr, tell, seen)
}

fn is_whole(got: &[u8]) -> bool {
    let text = String::from_utf8_lossy(got);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    got.len() >= head.len() + 4 + length.parse::<usize>().unwrap()
}

#[test]
fn what_the_collector_takes_is_counted_and_what_it_refuses_too() {
    let (addr, tell, _seen) = collector();
    tell.send("HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let traces = Traces::start(settings(addr, 10)).unwrap();
    traces.tell(finished());
    assert!(traces.flush(LONG));
    assert_eq!(traces.counters().exported, 1);

    // They may go in one body or in two.
    for _ in 0..2 {
        tell.send("HTTP/1.1 400 Bad\r\n\r\n").unwrap();
    }
    let traces = Traces::start(settings(addr, 10)).unwrap();
    traces.tell(finished());
    traces.tell(finished());
    assert!(traces.flush(LONG));
    let counters = traces.counters();
    assert_eq!((counters.exported, counters.not_taken), (0, 2));
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let (addr, tell, seen) = collector();
    tell.send("HTTP/1.1 503 Busy\r\nretry-after: 0\r\n\r\n").unwrap();
    let traces = Traces::start(settings(addr, 10)).unwrap();
    traces.tell(finished());
    seen.recv_timeout(LONG).unwrap();
    seen.recv_timeout(LONG).unwrap();
    tell.send("HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert!(traces.flush(LONG));
    let counters = traces.counters();
    assert_eq!((counters.exported, counters.not_taken), (1, 0));
}

#[test]
fn nobody_waits_for_a_collector_that_is_silent_and_what_is_dropped_is_counted() {
    let (addr, tell, seen) = collector();
    let traces = Traces::start(settings(addr, 3)).unwrap();
    traces.tell(finished());
    // The first is on its way, and will not be answered.
    seen.recv_timeout(LONG).unwrap();
    for _ in 0..5 {
        traces.tell(finished());
    }
    assert_eq!(traces.counters().queue_full, 2);
    assert!(!traces.flush(Duration::from_millis(1)), "it is not waited for");
    traces.tell(finished());
    assert_eq!(traces.counters().queue_full, 3, "who comes late is dropped");
    drop(tell);
}

#[test]
fn what_a_dead_collector_gets_is_lost_and_counted_without_keeping_the_end_waiting() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let traces = Traces::start(settings(gone, 1_000)).unwrap();
    for _ in 0..300 {
        traces.tell(finished());
    }
    assert!(traces.flush(LONG));
    assert_eq!(
        traces.counters(),
        Counters {
            not_taken: 300,
            ..Counters::default()
        }
    );
}

#[test]
fn so_many_traces_are_chosen_as_the_ratio_says_by_their_last_bits() {
    let id = |last: u64| {
        let [a, b, c, d, e, f, g, h] = last.to_be_bytes();
        TraceId::of([1, 1, 1, 1, 1, 1, 1, 1, a, b, c, d, e, f, g, h]).unwrap()
    };
    let below = |millionths: u128| (millionths << 63) / WHOLE;
    assert!(is_chosen(id(u64::MAX), below(1_000_000)) && !is_chosen(id(0), below(0)));
    let quarter = below(250_000);
    assert!(is_chosen(id((1 << 62) - 1), quarter) && !is_chosen(id(1 << 62), quarter));
}

#[test]
fn the_resource_is_ours_unless_the_operator_says_otherwise() {
    let ours = resource("").unwrap();
    assert_eq!(ours[0], ("service.name".to_owned(), "obleth".to_owned()));
    assert_ne!(ours[2], resource("").unwrap()[2], "an instance has an id of its own");
    let theirs = resource("service.name=edge%20one,k8s.pod.name=p").unwrap();
    assert!(theirs.contains(&("service.name".to_owned(), "edge one".to_owned())) && theirs.len() == 4);
    assert!(resource("nonsense").is_err());
}

#[test]
fn nothing_is_traced_where_nothing_is_to_be() {
    let off = Traces::default();
    assert!(!off.is_on());
    off.tell(finished());
    assert!(off.flush(Duration::ZERO) && off.counters() == Counters::default());
}
