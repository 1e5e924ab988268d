//! The bodies of answers: whole, broken off, or a stream of one event per token.

use std::fmt::Write as _;
use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::dialect::{Answer, Mould, Number, token};
use super::fault::Ending;
use super::job::Job;
use super::slots::{Slot, Slots};
use super::tally::Outcome;

/// What was handed over gets this long to leave the process before the socket is closed on purpose.
const FLUSH: Duration = Duration::from_millis(5);

/// Closes the connection where it is returned as an error.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(super) struct Cut;

/// Any body the simulation answers with.
pub(super) enum Answered {
    Whole(Option<Bytes>),
    Broken(Box<Broken>),
    Stream(Box<Tokens>),
}

impl Body for Answered {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Broken(broken) => broken.poll(cx),
            Self::Stream(tokens) => tokens.poll(cx).map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Broken(_) | Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The first part of an answer that is no stream, and then silence or the end of the connection.
pub(super) struct Broken {
    part: Option<Bytes>,
    closing: Option<Pin<Box<Sleep>>>,
    /// Ends when the client has had enough.
    job: Job,
}

impl Broken {
    /// Half of `whole`, or nothing at all where the fault comes at 0.
    pub(super) fn new(whole: &Bytes, ending: Ending, job: Job) -> Self {
        let (after, closes) = match ending {
            Ending::Cut(after) => (after, true),
            Ending::Stall(after) => (after, false),
            Ending::Whole | Ending::Reset | Ending::Garbage | Ending::Redirect => (1, true),
        };
        let half = if after == 0 { 0 } else { whole.len() / 2 };
        Self {
            part: (half > 0).then(|| whole.slice(..half)),
            closing: closes.then(|| Box::pin(sleep(FLUSH))),
            job,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(part) = self.part.take() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        match &mut self.closing {
            // Nobody wakes this but the client's leaving, which ends the connection.
            None => Poll::Pending,
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                self.job.will_end(Outcome::Faulted);
                Poll::Ready(Some(Err(Cut)))
            }
        }
    }
}

type Acquire = Pin<Box<dyn Future<Output = Slot> + Send>>;

/// Waiting => Generating => Closing | Over.
enum Stage {
    /// For a slot.
    Waiting(Option<Acquire>),
    Generating,
    /// A cut is due as soon as what was sent has left.
    Closing,
    Over,
}

/// A stream of server-sent events, one per token, each at its time.
pub(super) struct Tokens {
    job: Job,
    answer: Answer,
    mould: Mould,
    ending: Ending,
    slots: Slots,
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    /// Whether `timer` is set for the next token.
    armed: bool,
    begun: bool,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Tokens {
    pub(super) fn new(job: Job, answer: Answer, ending: Ending, slots: &Slots, gzip: bool) -> Self {
        Self {
            mould: answer.mould(),
            job,
            answer,
            ending,
            slots: slots.clone(),
            stage: Stage::Waiting(None),
            timer: Box::pin(sleep(Duration::ZERO)),
            armed: false,
            begun: false,
            gzip: gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast())),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            match &mut self.stage {
                Stage::Waiting(acquire) => {
                    let (slots, job) = (&self.slots, &self.job);
                    let acquire = acquire.get_or_insert_with(|| Box::pin(slots.clone().take(job.size())));
                    let slot = ready!(acquire.as_mut().poll(cx));
                    self.stage = Stage::Generating;
                    self.job.start(slot);
                }
                Stage::Generating => {
                    let sent = self.job.tokens();
                    match self.ending {
                        Ending::Stall(after) if sent >= after => return Poll::Pending,
                        Ending::Cut(after) if sent >= after => {
                            self.timer.as_mut().reset(Instant::now() + FLUSH);
                            self.stage = Stage::Closing;
                            continue;
                        }
                        _ => {}
                    }
                    if sent == self.job.order.tokens {
                        self.stage = Stage::Over;
                        self.job.will_end(Outcome::Finished);
                        return Poll::Ready(Some(Ok(self.last())));
                    }
                    ready!(self.poll_due(cx, sent));
                    return Poll::Ready(Some(Ok(self.next(sent))));
                }
                Stage::Closing => {
                    ready!(self.timer.as_mut().poll(cx));
                    self.stage = Stage::Over;
                    self.job.will_end(Outcome::Faulted);
                    return Poll::Ready(Some(Err(Cut)));
                }
                Stage::Over => return Poll::Ready(None),
            }
        }
    }

    /// Waits until the `index`-th token is due.
    fn poll_due(&mut self, cx: &mut Context<'_>, index: u64) -> Poll<()> {
        if self.job.immediate() {
            return Poll::Ready(());
        }
        if !self.armed {
            self.timer.as_mut().reset(self.job.due(index));
            self.armed = true;
        }
        ready!(self.timer.as_mut().poll(cx));
        self.armed = false;
        Poll::Ready(())
    }

    /// The event of the `index`-th token, after the prologue if it is the first.
    fn next(&mut self, index: u64) -> Bytes {
        let mut event = BytesMut::with_capacity(256);
        self.begin(&mut event);
        let Mould {
            head,
            number,
            middle,
            tail,
        } = &self.mould;
        event.put_slice(head.as_bytes());
        let choices = self.job.order.choices.max(1);
        // Writing into a BytesMut cannot fail.
        let _ = match number {
            Number::Absent => Ok(()),
            Number::Choice => write!(event, "{}", index % choices),
            Number::Sequence(first) => write!(event, "{}", first + index),
        };
        event.put_slice(middle.as_bytes());
        event.put_slice(token(index / choices).as_bytes());
        event.put_slice(tail.as_bytes());
        if self.answer.continuous_usage {
            // As vLLM has it: each chunk counts its own choice only.
            let _ = write!(event, r#","usage":{}"#, self.answer.usage(index / choices + 1));
        }
        event.put_slice(b"}\n\n");
        self.job.sent(1);
        self.code(event.freeze())
    }

    fn last(&mut self) -> Bytes {
        let mut event = BytesMut::new();
        self.begin(&mut event);
        event.put_slice(self.answer.epilogue().as_bytes());
        let coded = self.code(event.freeze());
        match self.gzip.take() {
            None => coded,
            // The encoder writes into memory, which cannot fail.
            Some(encoder) => [coded.to_vec(), encoder.finish().unwrap_or_default()].concat().into(),
        }
    }

    fn begin(&mut self, event: &mut BytesMut) {
        if !self.begun {
            self.begun = true;
            event.put_slice(self.answer.prologue().as_bytes());
        }
    }

    /// Compresses, flushed per event, where the fault asks for it.
    fn code(&mut self, plain: Bytes) -> Bytes {
        let Some(encoder) = &mut self.gzip else { return plain };
        // The encoder writes into memory, which cannot fail.
        let _ = encoder.write_all(&plain).and_then(|()| encoder.flush());
        std::mem::take(encoder.get_mut()).into()
    }
}

/// Compresses a whole body.
pub(super) fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // The encoder writes into memory, which cannot fail.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}
