//! Which tools of a server may be called.

/// A server's rule, as an operator wrote it. Names are compared exactly, as decoded text.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// Those that may be called; `None` is all.
    pub allowed: Option<&'a [String]>,
    /// Those that may not, whatever `allowed` says.
    pub denied: &'a [String],
}

impl Tools<'_> {
    /// Whether there is a rule at all.
    #[must_use]
    pub const fn restrict(&self) -> bool {
        self.allowed.is_some() || !self.denied.is_empty()
    }

    /// Whether a tool may be called. One whose name cannot be read (`None`) may be only where there is no rule.
    #[must_use]
    pub fn permit(&self, name: Option<&str>) -> bool {
        let Some(name) = name else { return !self.restrict() };
        let is = |listed: &String| listed == name;
        self.allowed.is_none_or(|allowed| allowed.iter().any(is)) && !self.denied.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_outranks_allowed_and_names_are_exact() {
        let (allowed, denied) = (vec!["read".to_owned(), "delete".to_owned()], vec!["delete".to_owned()]);
        let all = Tools {
            allowed: None,
            denied: &[],
        };
        assert!(!all.restrict() && all.permit(Some("x")) && all.permit(None));
        let some = Tools {
            allowed: Some(&allowed),
            denied: &denied,
        };
        assert!(some.restrict() && some.permit(Some("read")));
        for name in [Some("delete"), Some("Read"), Some("read "), Some(""), None] {
            assert!(!some.permit(name), "{name:?}");
        }
        let but = Tools {
            allowed: None,
            denied: &denied,
        };
        assert!(but.permit(Some("anything")) && !but.permit(Some("delete")) && !but.permit(None));
        assert!(
            !Tools {
                allowed: Some(&[]),
                denied: &[]
            }
            .permit(Some("read")),
            "an empty list allows none"
        );
    }
}
