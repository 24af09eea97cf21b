//! report.html: one file without scripts or outside references.

use crate::RunSummary;
use crate::report::document::{Block, Document, Section, Table};
use crate::report::{escape, svg};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1f;background:#fff;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid #ddd;padding-bottom:.2rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0 1.2rem;font-variant-numeric:tabular-nums}\
caption{text-align:left;font-weight:600;padding:.3rem 0}th,td{padding:.22rem .6rem;border-bottom:1px solid #e4e4e8;vertical-align:top}\
th{text-align:left;font-weight:600}.n{text-align:right}.g{text-align:center;border-bottom:2px solid #bbb}\
.t{white-space:pre-wrap;overflow-wrap:anywhere}figure{display:inline-block;margin:.4rem 1rem .8rem 0}\
#outcome p:first-of-type{font-size:1.1rem;font-weight:600}.hash{font-family:ui-monospace,monospace;overflow-wrap:anywhere}nav a{margin-right:1rem}";

/// The report as one self-contained HTML page with inline SVG.
#[must_use]
pub fn html(summary: &RunSummary) -> String {
    page(&super::document(summary))
}

/// A report as a page.
pub(crate) fn page(document: &Document) -> String {
    let title = escape::html(&document.title);
    let link = |section: &Section| format!("<a href=\"#{}\">{}</a>", anchor(section.title), section.title);
    let links: Vec<String> = document.sections.iter().map(link).collect();
    let sections: String = document.sections.iter().map(section).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<nav>{}</nav>\n{sections}</body></html>\n",
        links.join(" ")
    )
}

/// Anchor of a section from its fixed title.
fn anchor(title: &str) -> String {
    title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

fn section(section: &Section) -> String {
    let blocks: String = section.blocks.iter().map(block).collect();
    format!("<section id=\"{}\">\n<h2>{}</h2>\n{blocks}</section>\n", anchor(section.title), section.title)
}

fn block(block: &Block) -> String {
    match block {
        Block::Text(text) => format!("<p>{}</p>\n", escape::html(text)),
        Block::List(items) => {
            let items: String = items.iter().map(|item| format!("<li>{}</li>", escape::html(item))).collect();
            format!("<ul>{items}</ul>\n")
        }
        Block::Table(table) => render(table),
        Block::Chart(chart) => format!("<figure>{}</figure>\n", svg::render(chart)),
        Block::Samples(samples) => samples.iter().map(|sample| answers(&sample.prompt, &sample.by_policy)).collect(),
        Block::Hashes(hashes) => {
            let row = |name: &str, hash: &str| {
                format!("<tr><td>{}</td><td class=\"hash\">{}</td></tr>", escape::html(name), escape::html(hash))
            };
            let rows: String = hashes.iter().map(|artefact| row(&artefact.name, &artefact.hash)).collect();
            format!("<div class=\"wide\"><table>{rows}</table></div>\n")
        }
    }
}

/// Cells of one row; numbers to the right.
fn render(table: &Table) -> String {
    let class = |numeric: bool| if numeric { " class=\"n\"" } else { "" };
    let mut text = String::from("<div class=\"wide\"><table>");
    if !table.caption.is_empty() {
        text.push_str(&format!("<caption>{}</caption>", escape::html(&table.caption)));
    }
    if table.groups.iter().any(|group| !group.title.is_empty()) {
        let group = |group: &super::document::Group| {
            let class = if group.title.is_empty() { "" } else { " class=\"g\"" };
            format!("<th{class} colspan=\"{}\">{}</th>", group.columns.len(), escape::html(&group.title))
        };
        let cells: String = table.groups.iter().map(group).collect();
        text.push_str(&format!("<tr>{cells}</tr>"));
    }
    if table.columns().any(|column| !column.header.is_empty()) {
        let header = |column: &super::document::Column| {
            format!("<th{}>{}</th>", class(column.numeric), escape::html(&column.header))
        };
        let cells: String = table.columns().map(header).collect();
        text.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    for row in 0..table.height() {
        let cell = |column: &super::document::Column| {
            format!("<td{}>{}</td>", class(column.numeric), escape::html(&column.cells[row]))
        };
        let cells: String = table.columns().map(cell).collect();
        text.push_str(&format!("<tr>{cells}</tr>\n"));
    }
    text.push_str("</table></div>\n");
    text
}

/// One prompt with the answers side by side.
fn answers(prompt: &str, by_policy: &[(String, String)]) -> String {
    let heads: String = by_policy.iter().map(|(policy, _)| format!("<th>{}</th>", escape::html(policy))).collect();
    let cells: String =
        by_policy.iter().map(|(_, answer)| format!("<td class=\"t\">{}</td>", escape::html(answer))).collect();
    format!(
        "<div class=\"wide\"><table><caption class=\"t\">{}</caption><tr>{heads}</tr><tr>{cells}</tr></table></div>\n",
        escape::html(prompt)
    )
}
