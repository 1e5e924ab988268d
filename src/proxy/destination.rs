//! Where a path leads. What is not in this table is answered 404 and reaches nothing: engines serve control routes
//! without authentication, so no path of a client's is ever forwarded.

use http::Method;
use percent_encoding::percent_decode_str;

use super::rescue::Fault;
use crate::llm::Route;

/// A place in the route table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// `GET /health`
    Health,
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`; names may hold slashes, escaped or not.
    Model(String),
    /// A `POST` that asks a model for something.
    Work(Route),
    /// Anything to an MCP server.
    Mcp(McpPath),
}

/// A place at an MCP server: `/mcp/{server}`, or below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct McpPath {
    /// The server's name; it has the form of one.
    pub(super) server: String,
    /// What follows it: empty, or segments of unreserved characters (RFC 3986, 2.3), each after a slash. No dots alone, no
    /// escapes, so that it leads nowhere but below the server's own path.
    pub(super) rest: String,
}

/// The methods of `/mcp/{server}`.
pub(super) const MCP_METHODS: &str = "GET, POST, DELETE, OPTIONS";
/// The longest name of a server.
const MCP_NAME_MAX: usize = 40;

const MODELS: &str = "/v1/models";

/// Finds the destination. The path is compared as it came: no dots are resolved and no escapes undone, but in the name of
/// a model, which goes nowhere.
///
/// # Errors
/// [`Fault::NotFound`], [`Fault::MethodNotAllowed`].
pub(super) fn find(method: &Method, path: &str) -> Result<Destination, Fault> {
    if let Some(route) = Route::of(path) {
        return if method == Method::POST {
            Ok(Destination::Work(route))
        } else {
            Err(Fault::MethodNotAllowed("POST"))
        };
    }
    if let Some(at) = path.strip_prefix("/mcp/") {
        let place = mcp_path(at).ok_or(Fault::NotFound)?;
        return if [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS].contains(method) {
            Ok(Destination::Mcp(place))
        } else {
            Err(Fault::MethodNotAllowed(MCP_METHODS))
        };
    }
    let destination = match path {
        "/health" => Destination::Health,
        MODELS => Destination::Models,
        _ => {
            let name = path
                .strip_prefix(MODELS)
                .and_then(|rest| rest.strip_prefix('/'))
                .filter(|name| !name.is_empty());
            let name = name.and_then(|name| percent_decode_str(name).decode_utf8().ok());
            Destination::Model(name.ok_or(Fault::NotFound)?.into_owned())
        }
    };
    if method == Method::GET || method == Method::HEAD {
        Ok(destination)
    } else {
        Err(Fault::MethodNotAllowed("GET, HEAD"))
    }
}

/// Takes apart what follows `/mcp/`.
fn mcp_path(path: &str) -> Option<McpPath> {
    let (server, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    let named = (1..=MCP_NAME_MAX).contains(&server.len())
        && server
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    // A slash at the end is the server itself.
    let rest = if rest == "/" { "" } else { rest };
    let plain = |segment: &str| {
        !segment.is_empty()
            && !matches!(segment, "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
    };
    let below = rest.is_empty() || rest.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain));
    (named && below).then(|| McpPath {
        server: server.to_owned(),
        rest: rest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mcp_server_has_its_name_and_what_is_plainly_below() {
        let at = |server: &str, rest: &str| {
            Ok(Destination::Mcp(McpPath {
                server: server.to_owned(),
                rest: rest.to_owned(),
            }))
        };
        assert_eq!(find(&Method::POST, "/mcp/files"), at("files", ""));
        assert_eq!(find(&Method::DELETE, "/mcp/files/"), at("files", ""));
        assert_eq!(find(&Method::GET, "/mcp/a-1/v2/x.y"), at("a-1", "/v2/x.y"));
        assert_eq!(find(&Method::PUT, "/mcp/files"), Err(Fault::MethodNotAllowed(MCP_METHODS)));
        for path in [
            "/mcp",
            "/mcp/",
            "/mcp//x",
            "/mcp/Files",
            "/mcp/a_b",
            "/mcp/files/../x",
            "/mcp/files/./x",
            "/mcp/files//x",
            "/mcp/files/x/",
            "/mcp/files/%2e%2e/x",
            "/mcp/files/a%2Fb",
            "/mcp/files/;x",
            "/MCP/files",
        ] {
            assert_eq!(find(&Method::POST, path), Err(Fault::NotFound), "{path}");
        }
        assert_eq!(find(&Method::POST, &format!("/mcp/{}", "a".repeat(41))), Err(Fault::NotFound));
    }

    #[test]
    fn only_the_table_leads_anywhere() {
        assert_eq!(
            find(&Method::POST, "/v1/chat/completions"),
            Ok(Destination::Work(Route::ChatCompletions))
        );
        assert_eq!(
            find(&Method::GET, "/v1/models/meta/llama%2F3"),
            Ok(Destination::Model("meta/llama/3".to_owned()))
        );
        assert_eq!(find(&Method::GET, "/v1/chat/completions"), Err(Fault::MethodNotAllowed("POST")));
        assert_eq!(find(&Method::POST, "/health"), Err(Fault::MethodNotAllowed("GET, HEAD")));
        for path in [
            "/",
            "/v1",
            "/invocations",
            "/v1/../pause",
            "/v1/chat/completions/",
            "//v1/models",
            "/V1/models",
            "/v1/models/",
            "/v1/chat%2Fcompletions",
        ] {
            assert_eq!(find(&Method::POST, path), Err(Fault::NotFound), "{path}");
        }
    }
}
