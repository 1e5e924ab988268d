//! Had it already: answers that are kept, and answers that come for another.
//!
//! A request whose model has a cache passes here after it is authorised and before it reserves or queues anything. A hit
//! and a follower are answered here; they take no slot, no tokens, no place among the requests per minute. Everybody else
//! goes on, perhaps as the *leader* of those who come with the same request while it runs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http::header::{AGE, CACHE_CONTROL, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::sleep_until;

use super::Gateway;
use super::ctx::{RequestCtx, Work};
use super::phase::logging::spent;
use super::phase::request_filter::{left, patience};
use super::phase::response_filter::{sign, tell as tell_head};
use super::rescue::Fault;
use crate::answers::{Ask, CacheStatus, Ended, Failure, Follower, Head, Heard, Leader, Saved, Step, Stored, Turn};
use crate::cache::Directives;

/// Header fields that change what an upstream makes of the body.
const DIALECT: [HeaderName; 2] = [
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
];

/// What a follower whose patience ended is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the end of an answer may take to be written where no write timeout is set.
pub(super) const FINISH_WITHIN: Duration = Duration::from_secs(30);

/// Answers from the cache, or with the answer to another. Returns whether the request has its answer; if not, it goes on.
pub(super) async fn had_it_already(gateway: &Gateway, session: &mut Session, ctx: &mut RequestCtx, body: &Bytes) -> Result<bool, Fault> {
    let turn = turn(gateway, session, ctx, body)?;
    if matches!(turn, Turn::Hit(_) | Turn::Follow(_))
        && let Some(principal) = &ctx.principal
    {
        ctx.rates = gateway.limits.view(principal, gateway.limits.now());
    }
    let (status, leader) = match turn {
        Turn::Hit(stored) => {
            ctx.cache = CacheStatus::Hit;
            ctx.saved = Some(stored.saved);
            replay(session, ctx, &stored).await?;
            return Ok(true);
        }
        Turn::Follow(follower) => {
            ctx.cache = CacheStatus::Coalesced;
            match follow(session, ctx, follower).await? {
                Followed::Answered => {
                    gateway.answers.followed(CacheStatus::Coalesced);
                    return Ok(true);
                }
                Followed::Leads(leader) => {
                    gateway.answers.followed(CacheStatus::Miss);
                    (CacheStatus::Miss, Some(leader))
                }
            }
        }
        Turn::Lead(leader) => (CacheStatus::Miss, Some(leader)),
        Turn::Bypass(leader) => (CacheStatus::Bypass, leader),
        Turn::NotCached => {
            ctx.cache = CacheStatus::Miss;
            return Err(Fault::NotCached);
        }
    };
    ctx.cache = status;
    if let Some(work) = &mut ctx.work {
        work.leader = leader;
    }
    Ok(false)
}

fn turn(gateway: &Gateway, session: &Session, ctx: &RequestCtx, body: &Bytes) -> Result<Turn, Fault> {
    let (Some(principal), Some(work), Some(route)) = (&ctx.principal, &ctx.work, ctx.route) else {
        return Err(Fault::Internal);
    };
    let headers = &session.req_header().headers;
    let all = DIALECT.each_ref().map(|name| {
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        (!values.is_empty()).then(|| values.join(&b","[..]))
    });
    let dialect = all.each_ref().map(Option::as_deref);
    let ask = Ask {
        tenant: &principal.tenant,
        model: &work.model,
        route,
        parsed: &work.parsed,
        body,
        dialect: &dialect,
        directives: Directives::read(headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes)),
    };
    Ok(gateway.answers.ask(&ask, Instant::now()))
}

/// Sends a kept answer, cut as it came.
async fn replay(session: &mut Session, ctx: &mut RequestCtx, stored: &Stored) -> Result<(), Fault> {
    let age = stored.born.elapsed().as_secs();
    head(session, ctx, &stored.head, Duration::ZERO, Some(age)).await?;
    for piece in stored.pieces() {
        session
            .as_mut()
            .write_response_body(piece, false)
            .await
            .map_err(|_| Fault::ClientGone)?;
    }
    finish(session).await
}

/// Sends the head of an answer that came for another.
async fn head(session: &mut Session, ctx: &mut RequestCtx, head: &Head, waited: Duration, age: Option<u64>) -> Result<(), Fault> {
    let written = async {
        let mut ours = ResponseHeader::build_no_case(head.status, Some(head.fields.len() + 8))?;
        for (name, value) in &head.fields {
            ours.append_header(name.clone(), value.clone())?;
        }
        if !ours.headers.contains_key(CONTENT_LENGTH) && session.req_header().version == http::Version::HTTP_11 {
            ours.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        if let Some(age) = age {
            ours.insert_header(AGE, HeaderValue::from(age))?;
        }
        let model = ctx.work.as_ref().map_or("", |work| &work.model.name);
        tell_head(&mut ours, model, waited)?;
        sign(&mut ours, ctx)?;
        session.as_mut().write_response_header(Box::new(ours)).await
    };
    written.await.map_err(|_| Fault::ClientGone)?;
    ctx.status = head.status;
    if let Some(work) = &mut ctx.work {
        work.answer.event_stream = head.event_stream;
        work.answer.first_byte_at = Some(Instant::now());
    }
    Ok(())
}

/// How following ended.
enum Followed {
    /// The client has its answer.
    Answered,
    /// There is nobody to follow any more.
    Leads(Leader),
}

/// Passes on the answer to another as it comes, until it ends, the client leaves, or it has waited long enough.
async fn follow(session: &mut Session, ctx: &mut RequestCtx, mut follower: Follower) -> Result<Followed, Fault> {
    let began = tokio::time::Instant::now();
    let total = ctx.work.as_ref().map_or(0, |work| work.model.timeouts.total_secs);
    let total = began + Duration::from_secs(u64::from(total));
    let mut patience = patience(session).map(|patience| began + patience);
    loop {
        let heard = tokio::select! {
            biased;
            heard = follower.next() => heard,
            fault = left(session.as_mut()) => return Err(fault),
            () = sleep_until(patience.unwrap_or(total)), if patience.is_some() => {
                if follower.is_queued() {
                    return Err(Fault::QueueTimeout { retry_after: RETRY_AFTER });
                }
                // It is being worked on: the time in the queue is over.
                patience = None;
                continue;
            }
            () = sleep_until(total) => return Err(Fault::UpstreamTimeout),
        };
        let step = match heard {
            Heard::Step(step) => step,
            Heard::Lead(leader) => {
                if let Some(work) = &mut ctx.work {
                    work.listened = began.elapsed();
                }
                return Ok(Followed::Leads(leader));
            }
        };
        let Step { head: first, pieces, end } = step;
        if let Some(first) = first {
            head(session, ctx, &first, began.elapsed(), None).await?;
        }
        for piece in pieces {
            session
                .as_mut()
                .write_response_body(piece, false)
                .await
                .map_err(|_| Fault::ClientGone)?;
        }
        match end {
            None => {}
            Some(Ended::Complete(saved)) => {
                finish(session).await?;
                ctx.saved = Some(saved);
                follower.saved(&saved);
                return Ok(Followed::Answered);
            }
            Some(Ended::Failed(failure, closing)) => {
                if let Some(work) = &mut ctx.work {
                    work.answer.closing = closing;
                }
                return Err(fault(failure));
            }
            // It does not read, so it is told nothing.
            Some(Ended::LeftBehind) => return Err(Fault::ClientGone),
        }
    }
}

/// Writes out what is left, and the end. Pingora sets no bound to this one.
async fn finish(session: &mut Session) -> Result<(), Fault> {
    let session = session.as_mut();
    let limit = session.get_write_timeout().unwrap_or(FINISH_WITHIN);
    match tokio::time::timeout(limit, session.write_response_body(Bytes::new(), true)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Fault::ClientGone),
    }
}

/// Tells the followers the next piece of the answer, and its end.
pub(super) fn tell(work: &mut Work, piece: Option<&Bytes>, end: bool) {
    if let (Some(leader), Some(piece)) = (&work.leader, piece) {
        leader.push(piece);
    }
    if end {
        complete(work);
    }
}

/// Tells the followers that the answer is complete.
pub(super) fn complete(work: &mut Work) {
    let Some(leader) = work.leader.take() else { return };
    let spent = spent(work);
    let saved = Saved {
        input_tokens: spent.input,
        output_tokens: spent.output,
        cost: spent.cost(&work.model.prices).total(),
    };
    let sound = work.answer.tap.as_ref().is_some_and(|tap| !tap.has_failed());
    leader.end(saved, sound, Instant::now());
}

/// Tells the followers that their leader goes no further, and why if it concerns them.
pub(super) fn failed(ctx: &mut RequestCtx, fault: &Fault) {
    let Some(work) = &mut ctx.work else { return };
    let Some(leader) = work.leader.take() else { return };
    let failure = match fault {
        Fault::NoHealthyUpstream(why) => Failure::NoEndpoint(why.as_str().into()),
        Fault::UpstreamUnreachable => Failure::Unreachable,
        Fault::UpstreamError(why) => Failure::Broken(why),
        Fault::UpstreamTimeout => Failure::Late,
        Fault::UpstreamInterrupted => Failure::Interrupted,
        Fault::Internal => Failure::Internal,
        // The leader's own affair: it left, its patience or its quota ended.
        _ => return leader.step_down(),
    };
    let closing = work.answer.tap.as_ref().map_or(&b""[..], crate::llm::Tap::cut);
    leader.fail(failure, closing);
}

fn fault(failure: Failure) -> Fault {
    match failure {
        Failure::NoEndpoint(why) => Fault::NoHealthyUpstream(why.to_string()),
        Failure::Unreachable => Fault::UpstreamUnreachable,
        Failure::Broken(why) => Fault::UpstreamError(why),
        Failure::Late => Fault::UpstreamTimeout,
        Failure::Interrupted => Fault::UpstreamInterrupted,
        Failure::Internal => Fault::Internal,
    }
}
