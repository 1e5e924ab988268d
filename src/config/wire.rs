//! How values of the catalog and the settings are written: one canonical JSON value for each, so that two are equal exactly
//! when nothing has changed. Money and times are texts, ids and URLs too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::settings::{LogFormat, LogLevel, Ratio, RequestLog, TenantLabel, WhenFull};
use crate::catalog::{ModelCapacity, Word, words};
use crate::egress;
use crate::pricing;
use crate::units::{PicoUsd, UnixMs, Weight};

/// A value with a canonical form.
pub(super) trait Wire: Sized {
    /// Its canonical form.
    fn show(&self) -> Value;
    /// Reads what [`show`](Self::show) writes; `None` for anything else.
    fn take(value: &Value) -> Option<Self>;
}

impl<W: Word> Wire for W {
    fn show(&self) -> Value {
        json!(self.word())
    }

    fn take(value: &Value) -> Option<Self> {
        Self::from_word(value.as_str()?)
    }
}

/// The policy has its own name in the rules.
use egress::Policy;

words! {
    Policy { PublicOnly = "public_only", Lan = "lan" }
    WhenFull { Reject = "reject", Serve = "serve" }
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
    LogFormat { Json = "json", Text = "text" }
    RequestLog { Off = "off", Failed = "failed", All = "all" }
    TenantLabel { Name = "name", Group = "group", Off = "off" }
}

macro_rules! whole {
    ($($name:ty),+) => {
        $(impl Wire for $name {
            fn show(&self) -> Value {
                json!(self)
            }

            fn take(value: &Value) -> Option<Self> {
                Self::try_from(value.as_u64()?).ok()
            }
        })+
    };
}

whole!(u8, u16, u32, u64, usize);

impl Wire for bool {
    fn show(&self) -> Value {
        Value::Bool(*self)
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl Wire for Weight {
    fn show(&self) -> Value {
        json!(self.get())
    }

    fn take(value: &Value) -> Option<Self> {
        Self::new(value.as_u64()?).ok()
    }
}

impl Wire for String {
    fn show(&self) -> Value {
        Value::String(self.clone())
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

macro_rules! textual {
    ($($name:ty => $show:expr),+ $(,)?) => {
        $(impl Wire for $name {
            fn show(&self) -> Value {
                let show: fn(&Self) -> String = $show;
                Value::String(show(self))
            }

            fn take(value: &Value) -> Option<Self> {
                value.as_str()?.parse().ok()
            }
        })+
    };
}

textual! {
    SocketAddr => ToString::to_string,
    PathBuf => |path| path.display().to_string(),
    url::Url => ToString::to_string,
}

impl Wire for PicoUsd {
    fn show(&self) -> Value {
        Value::String(pricing::format(*self))
    }

    fn take(value: &Value) -> Option<Self> {
        pricing::parse(value.as_str()?).ok()
    }
}

impl Wire for Ratio {
    fn show(&self) -> Value {
        Value::String(self.format())
    }

    fn take(value: &Value) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

impl Wire for UnixMs {
    fn show(&self) -> Value {
        let end = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Value::String(Timestamp::from_millisecond(self.0).unwrap_or(end).to_string())
    }

    fn take(value: &Value) -> Option<Self> {
        let time: Timestamp = value.as_str()?.parse().ok()?;
        Some(Self(time.as_millisecond()))
    }
}

impl Wire for ModelCapacity {
    fn show(&self) -> Value {
        match self {
            Self::Uncapped => Value::Null,
            Self::Fixed(slots) => json!(slots),
            Self::Auto => json!("auto"),
        }
    }

    fn take(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Uncapped),
            Value::String(word) if word == "auto" => Some(Self::Auto),
            other => u32::take(other).map(Self::Fixed),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, Wire::show)
    }

    fn take(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::take(value).map(Some) }
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn show(&self) -> Value {
        self.iter().map(Wire::show).collect()
    }

    fn take(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::take).collect()
    }
}

impl Wire for BTreeMap<String, String> {
    fn show(&self) -> Value {
        json!(self)
    }

    fn take(value: &Value) -> Option<Self> {
        let pairs = value.as_object()?.iter();
        pairs
            .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect()
    }
}
