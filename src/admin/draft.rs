//! What a body asks for: a struct of fields that were given, given as `null`, or left out. Declared once with [`draft!`],
//! which makes the reader and the JSON Schemas.

use serde_json::{Map, Value as Json, json};

use super::fault::Faults;
use super::fields::{Fields, join};
use super::value::nullable;

/// A field of a body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Given<T> {
    /// Left out: the value stays.
    #[default]
    Absent,
    /// `null`: the default comes back.
    Null,
    /// A value.
    Is(T),
}

impl<T> Given<T> {
    /// Puts the value, or the default for `null`, where it belongs.
    pub(super) fn settle(self, place: &mut T, default: impl FnOnce() -> T) {
        match self {
            Self::Absent => {}
            Self::Null => *place = default(),
            Self::Is(value) => *place = value,
        }
    }

    pub(super) const fn is_value(&self) -> bool {
        matches!(self, Self::Is(_))
    }

    /// The value; `None` for `null` and where there is none.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl<T> Given<Option<T>> {
    /// For fields where `null` is a value of its own.
    pub(super) fn settle_option(self, place: &mut Option<T>) {
        self.settle(place, || None);
    }
}

/// What a body is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Makes an object: fields without a default are required, read-only ones refused.
    Create,
    /// Changes an object: everything may be left out, read-only fields are ignored.
    Edit,
    /// Stands inside a body: fields without a default are required, read-only ones ignored.
    Nested,
    /// Changes one aspect of an object: fields without a default are required, the others may be left out and stay.
    Part,
}

/// One field, as it is documented.
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) description: String,
    pub(super) schema: Json,
    /// `None` if the field has no default: it is required when an object is made, and never `null`.
    pub(super) default: Option<Json>,
    pub(super) write_only: bool,
}

/// A body that can be read and described.
pub(super) trait Draft: Sized {
    /// What it is about, for messages: `a tenant`, `a key`, …
    const NOUN: &'static str;
    /// Fields of the object that the gateway sets.
    const READ_ONLY: &'static [&'static str];

    /// Reads the known fields and calls everything else a fault.
    fn take(fields: &mut Fields<'_>, at: &str, mode: Mode, faults: &mut Faults) -> Self;

    /// Its fields, in order.
    fn properties() -> Vec<Property>;

    /// The schema of the body.
    fn schema(mode: Mode) -> Json {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for property in Self::properties() {
            let mut schema = property.schema;
            match property.default {
                None if mode != Mode::Edit => required.push(json!(property.name)),
                None => {}
                Some(default) => {
                    schema = nullable(schema);
                    if matches!(mode, Mode::Create | Mode::Nested) {
                        schema["default"] = default;
                    }
                }
            }
            schema["description"] = json!(property.description);
            if property.write_only {
                schema["writeOnly"] = json!(true);
            }
            properties.insert(property.name.to_owned(), schema);
        }
        if matches!(mode, Mode::Edit | Mode::Nested) {
            for name in Self::READ_ONLY {
                properties.insert((*name).to_owned(), json!({"description": "Set by the gateway; ignored here."}));
            }
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    /// The schema of the object as it is shown: `read_only` describes what the gateway adds.
    fn shown(read_only: &Json) -> Json {
        let mut properties = Map::new();
        for property in Self::properties() {
            if property.write_only {
                let about = format!("Whether `{}` is set; itself it is never shown.", property.name);
                properties.insert(format!("{}_set", property.name), json!({"type": "boolean", "description": about}));
                continue;
            }
            let mut schema = property.schema;
            schema["description"] = json!(property.description);
            properties.insert(property.name.to_owned(), schema);
        }
        if let Json::Object(added) = read_only {
            properties.extend(added.clone());
        }
        let required: Vec<&String> = properties.keys().collect();
        json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
    }
}

/// Judges what nobody took.
pub(super) fn leftovers<D: Draft>(fields: &Fields<'_>, at: &str, mode: Mode, faults: &mut Faults) {
    for name in fields.rest() {
        let read_only = D::READ_ONLY.contains(&name);
        if read_only && matches!(mode, Mode::Edit | Mode::Nested) {
            continue;
        }
        let message = if read_only {
            "is set by the gateway".to_owned()
        } else {
            format!("is no field of {}", D::NOUN)
        };
        faults.add(&join(at, name), message);
    }
}

/// Declares a [`Draft`]: `field: Type = default;` for optional fields, `field: Type;` for those that make no sense without.
macro_rules! draft {
    (
        $(#[$meta:meta])*
        $name:ident, $noun:literal, read_only: [$($read_only:literal),* $(,)?],
        $($(#[doc = $doc:literal])+ $field:ident: $value:ty $(= $default:tt)?;)+
    ) => {
        $(#[$meta])*
        pub(in crate::admin) struct $name {
            $($(#[doc = $doc])+ pub(in crate::admin) $field: $crate::admin::draft::Given<<$value as $crate::admin::value::Value>::Out>,)+
        }

        impl $crate::admin::draft::Draft for $name {
            const NOUN: &'static str = $noun;
            const READ_ONLY: &'static [&'static str] = &[$($read_only),*];

            fn take(
                fields: &mut $crate::admin::fields::Fields<'_>,
                at: &str,
                mode: $crate::admin::draft::Mode,
                faults: &mut $crate::admin::fault::Faults,
            ) -> Self {
                let draft = Self {
                    $($field: $crate::admin::draft::field::<$value>(
                        fields,
                        stringify!($field),
                        $crate::admin::draft::draft!(@optional $($default)?),
                        at,
                        mode,
                        faults,
                    ),)+
                };
                $crate::admin::draft::leftovers::<Self>(fields, at, mode, faults);
                draft
            }

            fn properties() -> Vec<$crate::admin::draft::Property> {
                vec![$($crate::admin::draft::Property {
                    name: stringify!($field),
                    description: [$($doc.trim()),+].join(" "),
                    schema: <$value as $crate::admin::value::Value>::schema(),
                    default: $crate::admin::draft::draft!(@default $($default)?),
                    write_only: <$value as $crate::admin::value::Value>::WRITE_ONLY,
                }),+]
            }
        }
    };
    (@optional) => { false };
    (@optional $default:tt) => { true };
    (@default) => { None };
    (@default $default:tt) => { Some(serde_json::json!($default)) };
}
pub(super) use draft;

/// Reads one field of a draft.
pub(super) fn field<V: super::value::Value>(
    fields: &mut Fields<'_>,
    name: &str,
    optional: bool,
    at: &str,
    mode: Mode,
    faults: &mut Faults,
) -> Given<V::Out> {
    match fields.take(name) {
        None if optional || mode == Mode::Edit => Given::Absent,
        None => {
            faults.add(&join(at, name), "is required");
            Given::Absent
        }
        Some(raw) if optional && raw.get() == "null" => Given::Null,
        Some(raw) => V::read(raw, &join(at, name), faults).map_or(Given::Absent, Given::Is),
    }
}
