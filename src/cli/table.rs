//! What commands print: tables for people, JSON for scripts.

use std::io::Write;

use clap::{Args, ValueEnum};

use super::row::Row;
use super::terminal;

/// How the answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Output {
    /// What to print: a table for people, or the API's own objects for scripts
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table, global = true)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// A column: its title, and what it shows of a row.
#[derive(Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    numeric: bool,
    show: fn(&Row) -> String,
}

impl Column {
    /// A column of words.
    pub(super) const fn text(title: &'static str, show: fn(&Row) -> String) -> Self {
        Self {
            title,
            numeric: false,
            show,
        }
    }

    /// A column of numbers, which stand to the right.
    pub(super) const fn number(title: &'static str, show: fn(&Row) -> String) -> Self {
        Self {
            title,
            numeric: true,
            show,
        }
    }
}

impl Output {
    /// Whether scripts read it.
    pub(super) fn is_json(self) -> bool {
        self.output == Format::Json
    }

    /// Prints a list.
    pub(super) fn list(self, columns: &[Column], rows: &[Row]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.is_json() {
            let rows: Vec<&str> = rows.iter().map(Row::json).collect();
            if rows.is_empty() {
                writeln!(out, "[]")?;
            } else {
                writeln!(out, "[\n  {}\n]", rows.join(",\n  "))?;
            }
            return Ok(());
        }
        let bold = terminal::colours(&std::io::stdout());
        for (at, line) in lines(columns, rows).iter().enumerate() {
            if at == 0 && bold {
                writeln!(out, "\x1b[1m{line}\x1b[0m")?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    /// Prints one object: JSON as it came, or a field a line.
    pub(super) fn object(self, row: &Row, fields: &[&str]) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.is_json() {
            writeln!(out, "{}", row.json())?;
            return Ok(());
        }
        let width = fields.iter().map(|field| field.len()).max().unwrap_or(0);
        for field in fields {
            writeln!(out, "{field:<width$}  {}", printable(&row.shown(field)))?;
        }
        Ok(())
    }

    /// Says what was done: a sentence for people, the object for scripts.
    pub(super) fn done(self, sentence: &str, json: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if !self.is_json() {
            writeln!(out, "{}", printable(sentence))?;
        } else if !json.is_empty() {
            writeln!(out, "{json}")?;
        }
        Ok(())
    }
}

/// What others have written does not steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter })
        .collect()
}

/// The table's lines: no borders, as wide as its widest cells.
pub(super) fn lines(columns: &[Column], rows: &[Row]) -> Vec<String> {
    let titles = columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = rows
        .iter()
        .map(|row| columns.iter().map(|column| printable(&(column.show)(row))).collect());
    let grid: Vec<Vec<String>> = std::iter::once(titles).chain(cells).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            grid.iter()
                .filter_map(|line| line.get(at))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |cells: &Vec<String>| {
        let padded: Vec<String> = cells
            .iter()
            .zip(columns.iter().zip(&widths))
            .map(|(cell, (column, width))| {
                if column.numeric {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    grid.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_steer_no_terminal() {
        let rows: Vec<Row> = serde_json::from_str(r#"[{"name": "ä\u001b[2J", "weight": 100}, {"name": "bb", "weight": 5}]"#).unwrap();
        let columns = [
            Column::text("NAME", |row| row.shown("name")),
            Column::number("WEIGHT", |row| row.shown("weight")),
        ];
        assert_eq!(lines(&columns, &rows), ["NAME   WEIGHT", "ä\u{fffd}[2J     100", "bb          5"]);
    }
}
