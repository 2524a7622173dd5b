//! Rows of text as columns, for every report that people read: what the program prints and what the bench keeps.
//!
//! A column is as wide as its widest cell, in characters; numbers stand to the right, all else to the left.
//! Two spaces part columns, and no line ends with spaces. Rows may be of different lengths. Nothing is cut
//! and nothing is escaped: a cell with a line end breaks the table.

/// The rows, one line each.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| match cell.parse::<f64>() {
                Ok(_) => format!("{cell:>width$}"),
                Err(_) => format!("{cell:<width$}"),
            });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let rows = [vec!["a", "b"], vec!["long", "1"], vec!["x", "12.5"], vec!["y"]]
            .map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(aligned(&rows), "a     b\nlong     1\nx     12.5\ny\n");
        assert_eq!(aligned(&[]), "");
    }
}
