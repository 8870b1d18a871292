//! The auditor's chart: columns of attempts over time as inline SVG, and the same numbers as a table.

use chrono::TimeDelta;
use maud::{Markup, html};

use super::said;
use crate::server::console::figures::{Count, Figures};

// The drawing's size, in its own units.
const WIDTH: u32 = 720;
const HEIGHT: u32 = 160;

/// Chart, totals, actors and rules.
#[must_use]
pub fn figures(figures: &Figures) -> Markup {
    let most = figures.columns.iter().map(Count::attempts).max().unwrap_or(0).max(1);
    html! {
        section.figures aria-labelledby="figures" {
            h2 #figures { "Attempts" }
            p.totals {
                strong { (figures.total.attempts()) } " attempts: "
                span.good { (figures.total.granted) " granted" } ", "
                span.bad { (figures.total.denied) " denied" }
                @if figures.total.pending > 0 { ", " (figures.total.pending) " pending" }
                @if figures.cut { " (the newest only; narrow the time to see all)" }
            }
            (drawing(figures, most))
            details {
                summary { "The same as a table" }
                div.scroll tabindex="0" role="region" aria-label="Attempts over time" {
                    table {
                        thead { tr { th scope="col" { "From (UTC)" } th scope="col" { "Granted" } th scope="col" { "Denied" } th scope="col" { "Pending" } } }
                        tbody {
                            @for (i, column) in figures.columns.iter().enumerate() {
                                @if column.attempts() > 0 {
                                    tr {
                                        th scope="row" { (begins(figures, i)) }
                                        td { (column.granted) } td { (column.denied) } td { (column.pending) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
            div.pair {
                (ranking("By actor", "actor", &figures.actors))
                (ranking("By rule", "rule", &figures.rules))
            }
        }
    }
}

fn begins(figures: &Figures, column: usize) -> String {
    let column = i32::try_from(column).unwrap_or(0);
    let format = if figures.step < TimeDelta::hours(12) { "%m-%d %H:%M" } else { "%Y-%m-%d" };
    (figures.since + figures.step * column).format(format).to_string()
}

fn drawing(figures: &Figures, most: u32) -> Markup {
    let columns = u32::try_from(figures.columns.len()).unwrap_or(1).max(1);
    let wide = WIDTH / columns;
    let high = |n: u32| if n == 0 { 0 } else { (n * (HEIGHT - 20) / most).max(2) };
    let label = format!(
        "Columns from {} on: {} attempts, {} granted, {} denied; the highest column has {most}.",
        begins(figures, 0),
        figures.total.attempts(),
        figures.total.granted,
        figures.total.denied
    );
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
            @for (i, column) in (0_u32..).zip(&figures.columns) {
                @let x = i * wide + 2;
                @let parts = [("granted", column.granted), ("denied", column.denied), ("pending", column.pending)];
                @for (at, (class, n)) in parts.iter().enumerate() {
                    @let below: u32 = parts[..at].iter().map(|(_, n)| high(*n)).sum();
                    @if *n > 0 {
                        rect class=(class) x=(x) width=(wide - 4) y=((HEIGHT - 16).saturating_sub(below + high(*n))) height=(high(*n)) {
                            title { (n) " " (class) " from " (begins(figures, i as usize)) }
                        }
                    }
                }
                @if i % 6 == 0 { text x=(x) y=(HEIGHT - 3) { (begins(figures, i as usize)) } }
            }
            line x1="0" x2=(WIDTH) y1=(HEIGHT - 15) y2=(HEIGHT - 15) {}
        }
    }
}

fn ranking(title: &str, filter: &str, rows: &[(String, Count)]) -> Markup {
    html! {
        div {
            h3 { (title) }
            @if rows.is_empty() { p.small { "Nothing." } } @else {
                table {
                    thead { tr { th scope="col" { (title) } th scope="col" { "Granted" } th scope="col" { "Denied" } } }
                    tbody {
                        @for (name, count) in rows {
                            tr {
                                th scope="row" {
                                    a href=(format!("/console/audit?{filter}={}", crate::server::outbound::percent_encode(name))) { (said(name)) }
                                }
                                td { (count.granted) } td { (count.denied) }
                            }
                        }
                    }
                }
            }
        }
    }
}
