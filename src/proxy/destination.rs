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
}

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

#[cfg(test)]
mod tests {
    use super::*;

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
