//! Columns of text, as kubectl prints them: three spaces between, nothing after the last.

use std::fmt::Write as _;

/// One column of a table over rows of type `T`.
pub struct Column<T> {
    /// Header, upper case.
    pub header: &'static str,
    /// Only with `-o wide`.
    pub wide: bool,
    /// Changes with time alone (an age): not a reason to print a row again while watching.
    pub volatile: bool,
    /// The cell; empty is printed as `-`.
    pub cell: fn(&T) -> String,
}

impl<T> std::fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Column").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<T> Column<T> {
    /// A column that is always shown.
    pub const fn new(header: &'static str, cell: fn(&T) -> String) -> Self {
        Self { header, wide: false, volatile: false, cell }
    }

    /// Only with `-o wide`.
    pub const fn wide(header: &'static str, cell: fn(&T) -> String) -> Self {
        Self { header, wide: true, volatile: false, cell }
    }

    /// Changes with time alone.
    pub const fn volatile(header: &'static str, cell: fn(&T) -> String) -> Self {
        Self { header, wide: false, volatile: true, cell }
    }
}

/// Rows ready to be printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Column headers.
    pub headers: Vec<&'static str>,
    /// One vector of cells a row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Lays `items` out in `columns`.
    #[must_use]
    pub fn new<T>(columns: &[Column<T>], items: &[T], wide: bool) -> Self {
        let shown: Vec<_> = columns.iter().filter(|c| wide || !c.wide).collect();
        Self {
            headers: shown.iter().map(|c| c.header).collect(),
            rows: items.iter().map(|item| shown.iter().map(|c| cell(c, item)).collect()).collect(),
        }
    }

    /// The text, every line ended; without the header line if `headers` is false. With `widths` of
    /// an earlier rendering, columns are at least that wide (rows streamed by `-w` stay aligned).
    #[must_use]
    pub fn render(&self, headers: bool, widths: &mut Vec<usize>) -> String {
        let header: Vec<String> = self.headers.iter().map(|h| (*h).to_owned()).collect();
        widths.resize(header.len().max(widths.len()), 0);
        let lines: Vec<&Vec<String>> =
            headers.then_some(&header).into_iter().chain(self.rows.iter()).collect();
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line.iter()) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for line in lines {
            let mut row = String::new();
            for (width, cell) in widths.iter().zip(line) {
                // Writing to a String cannot fail.
                let _ = write!(row, "{cell:<width$}   ");
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

/// What identifies the state of a row, without what changes by itself.
pub fn stable_cells<T>(columns: &[Column<T>], item: &T) -> Vec<String> {
    columns.iter().filter(|c| !c.volatile).map(|c| cell(c, item)).collect()
}

fn cell<T>(column: &Column<T>, item: &T) -> String {
    let text = (column.cell)(item);
    if text.is_empty() { "-".to_owned() } else { printable(&text) }
}

/// Text from elsewhere (a peer, a manifest) must not move the cursor or forge a line.
pub fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars()
            .flat_map(
                |c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] },
            )
            .collect()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<(u32, &str)>] = &[
        Column::new("NAME", |row| row.1.to_owned()),
        Column::volatile("N", |row| row.0.to_string()),
        Column::wide("TWICE", |row| (row.0 * 2).to_string()),
    ];

    #[test]
    fn columns_align_and_blank_cells_show_a_dash() {
        let table = Table::new(COLUMNS, &[(1, "a-long-name"), (22, "")], false);
        assert_eq!(
            table.render(true, &mut Vec::new()),
            "NAME          N\na-long-name   1\n-             22\n"
        );
    }

    #[test]
    fn wide_adds_columns() {
        let table = Table::new(COLUMNS, &[(1, "a")], true);
        assert_eq!(table.render(false, &mut Vec::new()), "a   1   2\n");
    }

    #[test]
    fn later_rows_keep_the_width_of_earlier_ones() {
        let mut widths = Vec::new();
        let first = Table::new(COLUMNS, &[(1, "a-long-name")], false).render(true, &mut widths);
        assert!(first.ends_with("a-long-name   1\n"));
        let later = Table::new(COLUMNS, &[(2, "b")], false).render(false, &mut widths);
        assert_eq!(later, "b             2\n");
    }

    #[test]
    fn an_age_is_no_change() {
        assert_eq!(stable_cells(COLUMNS, &(1, "a"))[0], stable_cells(COLUMNS, &(9, "a"))[0]);
        assert_eq!(stable_cells(COLUMNS, &(1, "a")).len(), 2);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }
}
