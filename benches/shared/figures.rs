//! How a bench says what it measured: lines for people that `scripts/bench` reads too.

/// What a figure is asked to be.
#[derive(Clone, Copy)]
pub enum Asked {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Nothing: it is told.
    Nothing,
}

/// One figure; whether it is what it is asked to be.
pub fn figure(name: &str, value: f64, unit: &str, asked: Asked) -> bool {
    let met = match asked {
        Asked::AtLeast(bound) => value >= bound,
        Asked::AtMost(bound) => value <= bound,
        Asked::Nothing => true,
    };
    let (asked, verdict) = match asked {
        Asked::AtLeast(bound) => (format!(">= {bound}"), if met { "met" } else { "MISSED" }),
        Asked::AtMost(bound) => (format!("<= {bound}"), if met { "met" } else { "MISSED" }),
        Asked::Nothing => (String::new(), ""),
    };
    println!("figure | {name:<62} | {value:>10.3} | {unit:<4} | {asked:<9} | {verdict}");
    met
}

/// One point of a picture: what `series` shows at `x`.
pub fn point(series: &str, x: f64, per_second: f64, p99_ms: f64) {
    println!("point | {series} | {x} | {per_second:.1} | {p99_ms:.3}");
}
