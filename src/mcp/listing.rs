//! Takes tools out of the answer to `tools/list`, and nothing else: by cutting bytes, never by writing the answer anew. What
//! a model sees of a list (order, schemas, unknown members, spelling) stays as the server wrote it.
//!
//! An answer that was shortened is no longer what the server said everybody may keep: its cache hints (`cacheScope`, `ttlMs`
//! of revision 2026-07-28) are set to private and at once stale.

use std::ops::Range;

use serde_json::value::RawValue;

use super::Tools;
use super::message::Members;

/// The text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotJson;

/// A stretch of the text, and what stands there instead.
type Edit = (Range<usize>, &'static str);

/// The text without the tools that may not be called; `None` where it stays as it is.
pub(super) fn filtered(text: &str, tools: &Tools<'_>) -> Result<Option<Vec<u8>>, NotJson> {
    let mut edits = Vec::new();
    let trimmed = text.trim_ascii();
    if trimmed.starts_with('[') {
        let batch: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| NotJson)?;
        for message in batch {
            in_message(text, message.get(), tools, &mut edits)?;
        }
    } else {
        in_message(text, trimmed, tools, &mut edits)?;
    }
    if edits.is_empty() {
        return Ok(None);
    }
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for (range, instead) in edits {
        out.extend_from_slice(text.as_bytes().get(at..range.start).unwrap_or_default());
        out.extend_from_slice(instead.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(text.as_bytes().get(at..).unwrap_or_default());
    Ok(Some(out))
}

fn in_message(text: &str, message: &str, tools: &Tools<'_>, edits: &mut Vec<Edit>) -> Result<(), NotJson> {
    for result in objects(message, "result")? {
        let before = edits.len();
        let members: Members<'_> = serde_json::from_str(result).map_err(|_| NotJson)?;
        for (_, list) in members
            .0
            .iter()
            .filter(|(key, value)| key == "tools" && value.get().starts_with('['))
        {
            let list: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| NotJson)?;
            cut(text, &list, tools, edits);
        }
        if edits.len() == before {
            continue;
        }
        for (key, hint) in &members.0 {
            match &**key {
                "cacheScope" => edits.push((place(text, hint.get()), "\"private\"")),
                "ttlMs" => edits.push((place(text, hint.get()), "0")),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The objects that an object has under a name. A message that is no object has none.
fn objects<'a>(text: &'a str, name: &str) -> Result<Vec<&'a str>, NotJson> {
    if !text.starts_with('{') {
        let _any: &RawValue = serde_json::from_str(text).map_err(|_| NotJson)?;
        return Ok(Vec::new());
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| NotJson)?;
    let named = members.0.into_iter().filter(|(key, _)| key == name).map(|(_, value)| value.get());
    Ok(named.filter(|value| value.starts_with('{')).collect())
}

/// Cuts elements of a list, each with one comma.
fn cut(text: &str, list: &[&RawValue], tools: &Tools<'_>, edits: &mut Vec<Edit>) {
    let places: Vec<Range<usize>> = list.iter().map(|tool| place(text, tool.get())).collect();
    let kept: Vec<bool> = list.iter().map(|tool| tools.permit(name(tool.get()).as_deref())).collect();
    let last_kept = kept.iter().rposition(|kept| *kept);
    let (Some(first), Some(last)) = (places.first(), places.last()) else {
        return;
    };
    let Some(last_kept) = last_kept else {
        edits.push((first.start..last.end, ""));
        return;
    };
    for (at, pair) in places.windows(2).enumerate() {
        if let ([this, next], Some(false)) = (pair, kept.get(at))
            && at < last_kept
        {
            edits.push((this.start..next.start, ""));
        }
    }
    if let Some(end_of_kept) = places.get(last_kept).map(|place| place.end)
        && end_of_kept < last.end
    {
        edits.push((end_of_kept..last.end, ""));
    }
}

/// A tool's name; `None` where it has none, or more than one.
fn name(tool: &str) -> Option<String> {
    let members: Members<'_> = serde_json::from_str(tool).ok()?;
    let mut names = members.0.iter().filter(|(key, _)| key == "name");
    let (_, name) = names.next()?;
    names.next().is_none().then(|| serde_json::from_str(name.get()).ok()).flatten()
}

/// Where a part of a text lies in it.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    start..start + part.len()
}
