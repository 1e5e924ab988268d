//! The YAML file as a tree whose every node knows its place, so that each fault can name a line.
//!
//! serde gives positions only with an error. So nodes are numbered in reading order, and [`locate`] reads the text again
//! and stops, with an error, at the node that is asked for. That costs a parse per fault, and faults are few.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Visitor};

/// More values than any sane file has. Aliases repeat whole subtrees, so the text's size alone is no bound.
const NODES_MAX: usize = 1 << 20;

/// A place in the file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value of the file.
pub(super) struct Node {
    /// Its number in reading order.
    pub(super) at: usize,
    pub(super) shape: Shape,
}

/// What a value is.
pub(super) enum Shape {
    Null,
    Flag(bool),
    Whole(u64),
    /// A number that is no `u64`, as it is written: prices must not pass through a float.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Member>),
    /// Something with a YAML tag, which nothing here has a use for.
    Tagged,
}

/// A member of a mapping.
pub(super) struct Member {
    pub(super) name: String,
    /// The number of the name itself.
    pub(super) at: usize,
    pub(super) value: Node,
}

/// Why the text is no YAML.
#[derive(Debug)]
pub(super) struct NotYaml {
    pub(super) place: Option<Place>,
    pub(super) message: String,
}

/// Reads the text.
///
/// # Errors
/// [`NotYaml`] where it ends.
pub(super) fn read(text: &str) -> Result<Node, NotYaml> {
    let first = Walk::default();
    let tree = first.run(text)?;
    let raw = first.floats.into_inner();
    if raw.is_empty() {
        return Ok(tree);
    }
    Walk { raw, ..Walk::default() }.run(text)
}

/// Where a node is; `None` if there is no such node.
pub(super) fn locate(text: &str, at: usize) -> Option<Place> {
    let walk = Walk {
        stop_at: Some(at),
        ..Walk::default()
    };
    walk.run(text).err()?.place
}

/// One way through the text.
#[derive(Default)]
struct Walk {
    next: Cell<usize>,
    /// Where to stop, with an error that knows the place.
    stop_at: Option<usize>,
    /// Nodes to be read as they are written.
    raw: HashSet<usize>,
    /// Nodes that serde has read as floats.
    floats: RefCell<HashSet<usize>>,
}

impl Walk {
    fn run(&self, text: &str) -> Result<Node, NotYaml> {
        let deserializer = serde_yaml::Deserializer::from_str(text);
        Step { walk: self }.deserialize(deserializer).map_err(|error| {
            let place = error.location().map(|place| Place {
                line: place.line(),
                column: place.column(),
            });
            NotYaml {
                place,
                message: error.to_string(),
            }
        })
    }
}

#[derive(Clone, Copy)]
struct Step<'w> {
    walk: &'w Walk,
}

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let at = self.walk.next.get();
        if at >= NODES_MAX {
            return Err(D::Error::custom(format!("more than {NODES_MAX} values, aliases resolved")));
        }
        self.walk.next.set(at + 1);
        if self.walk.stop_at == Some(at) {
            return deserializer.deserialize_str(Stop);
        }
        let shape = if self.walk.raw.contains(&at) {
            Shape::Number(deserializer.deserialize_str(Raw)?)
        } else {
            deserializer.deserialize_any(Shaped { walk: self.walk, at })?
        };
        Ok(Node { at, shape })
    }
}

/// Refuses whatever it is shown: the error has the place.
struct Stop;

impl Visitor<'_> for Stop {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

/// Takes a scalar as it is written.
struct Raw;

impl Visitor<'_> for Raw {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

struct Shaped<'w> {
    walk: &'w Walk,
    at: usize,
}

impl<'de> Visitor<'de> for Shaped<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Shape, E> {
        Ok(Shape::Flag(flag))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Shape, E> {
        Ok(Shape::Whole(number))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Shape, E> {
        Ok(Shape::Number(number.to_string()))
    }

    fn visit_u128<E: de::Error>(self, number: u128) -> Result<Shape, E> {
        Ok(Shape::Number(number.to_string()))
    }

    fn visit_i128<E: de::Error>(self, number: i128) -> Result<Shape, E> {
        Ok(Shape::Number(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Shape, E> {
        self.walk.floats.borrow_mut().insert(self.at);
        Ok(Shape::Number(number.to_string()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Shape, E> {
        Ok(Shape::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let step = Step { walk: self.walk };
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(step)? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Shape, A::Error> {
        let step = Step { walk: self.walk };
        let mut map = Vec::new();
        while let Some(key) = members.next_key_seed(step)? {
            let Shape::Text(name) = key.shape else {
                return Err(A::Error::custom("names of fields must be text (put quotes around numbers)"));
            };
            let value = members.next_value_seed(step)?;
            map.push(Member { name, at: key.at, value });
        }
        Ok(Shape::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Shape, A::Error> {
        let (de::IgnoredAny, content) = tagged.variant::<de::IgnoredAny>()?;
        de::VariantAccess::newtype_variant::<de::IgnoredAny>(content)?;
        Ok(Shape::Tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every node's place, name first, as `line:column what`.
    fn places(text: &str) -> Vec<String> {
        fn walk(text: &str, node: &Node, out: &mut Vec<String>) {
            let what = match &node.shape {
                Shape::Null => "null".to_owned(),
                Shape::Flag(flag) => flag.to_string(),
                Shape::Whole(number) => number.to_string(),
                Shape::Number(raw) => format!("#{raw}"),
                Shape::Text(text) => format!("'{text}'"),
                Shape::List(_) => "list".to_owned(),
                Shape::Map(_) => "map".to_owned(),
                Shape::Tagged => "tagged".to_owned(),
            };
            let place = locate(text, node.at).unwrap();
            out.push(format!("{}:{} {what}", place.line, place.column));
            match &node.shape {
                Shape::List(items) => items.iter().for_each(|item| walk(text, item, out)),
                Shape::Map(members) => {
                    for member in members {
                        let place = locate(text, member.at).unwrap();
                        out.push(format!("{}:{} {}:", place.line, place.column, member.name));
                        walk(text, &member.value, out);
                    }
                }
                _ => {}
            }
        }
        let mut out = Vec::new();
        walk(text, &read(text).unwrap(), &mut out);
        out
    }

    #[test]
    fn every_node_knows_its_line_and_column() {
        let text =
            "# a comment\na: 1\nb:\n  - x: \"q\\u0041\"\n    y: |\n      two\n      lines\n  - {z: -1.50, w: [true, ~]}\nc: 'it''s'\n";
        assert_eq!(
            places(text),
            [
                "2:1 map",
                "2:1 a:",
                "2:4 1",
                "3:1 b:",
                "4:3 list",
                "4:5 map",
                "4:5 x:",
                "4:8 'qA'",
                "5:5 y:",
                "5:8 'two\nlines\n'",
                "8:5 map",
                "8:6 z:",
                "8:9 #-1.50",
                "8:16 w:",
                "8:19 list",
                "8:20 true",
                "8:26 null",
                "9:1 c:",
                "9:4 'it's'",
            ]
        );
    }

    #[test]
    fn numbers_keep_their_spelling() {
        let tree = read("[0.10, 1e-7, 99999999999999999999, 123456.123456789012, 0x10]\n").unwrap();
        let Shape::List(items) = tree.shape else { panic!("a list") };
        let spelled: Vec<&str> = items
            .iter()
            .filter_map(|item| match &item.shape {
                Shape::Number(raw) => Some(raw.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(spelled, ["0.10", "1e-7", "99999999999999999999", "123456.123456789012"]);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", ")));
        }
        assert!(read(&text).is_err());
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        let fault = read("a: 1\nb: [1, 2\nc: 3\n").err().unwrap();
        assert_eq!(fault.place.unwrap().line, 3, "{}", fault.message);
    }
}
