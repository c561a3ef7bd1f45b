//! Panels of the dashboard as a page with drawings, in place of Grafana.

use std::fmt::Write;

use serde_json::Value;

/// A panel with what Prometheus answered.
pub struct Panel {
    pub title: String,
    /// The unit, by Grafana's name for it.
    pub unit: String,
    pub seconds: u64,
    pub series: Vec<Series>,
}

/// A line of a panel.
#[derive(Debug)]
pub struct Series {
    pub name: String,
    /// Seconds since the start of the panel, and values; no value that is not finite.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 150.0;
const COLOURS: [&str; 8] = [
    "#3266a8", "#c4572f", "#3b8a56", "#8a5aa8", "#b58a1f", "#3a9aa8", "#a83a6a", "#6b6b6b",
];
/// The most lines that a legend names.
const NAMED: usize = 5;

impl Series {
    /// Reads a result of `query_range`. `legend` has labels in double braces.
    pub fn read(legend: &str, result: &Value, start: f64) -> Self {
        let mut name = legend.to_owned();
        for (label, value) in result["metric"].as_object().unwrap() {
            name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap());
        }
        let points = result["values"].as_array().unwrap().iter().filter_map(|point| {
            let value: f64 = point[1].as_str()?.parse().ok()?;
            value.is_finite().then_some((point[0].as_f64()? - start, value))
        });
        Self {
            name,
            points: points.collect(),
        }
    }
}

impl Panel {
    /// Returns the highest value; 0 if there is none.
    pub fn highest(&self) -> f64 {
        let points = self.series.iter().flat_map(|series| &series.points);
        points.map(|(_, value)| *value).fold(0.0, f64::max)
    }

    /// Formats a value in the panel's unit.
    fn value(&self, value: f64) -> String {
        match self.unit.as_str() {
            "s" if value < 0.001 => format!("{:.0} us", value * 1e6),
            "s" if value < 1.0 => format!("{:.1} ms", value * 1e3),
            "s" => format!("{value:.1} s"),
            "bytes" => format!("{:.0} MiB", value / f64::from(1 << 20)),
            "percentunit" => format!("{:.0} %", value * 100.0),
            "ops" => format!("{value:.0}/s"),
            _ => format!("{value:.1}"),
        }
    }

    fn draw(&self, html: &mut String) {
        let highest = self.highest();
        let scale = if highest > 0.0 { highest * 1.1 } else { 1.0 };
        let title = text(&self.title);
        write!(
            html,
            "<figure><figcaption>{title}</figcaption>\
             <svg width='{WIDTH}' height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}'>"
        )
        .unwrap();
        for part in 0..=2 {
            let y = HEIGHT - f64::from(part) / 2.0 * HEIGHT / 1.1;
            let value = self.value(highest * f64::from(part) / 2.0);
            write!(
                html,
                "<path d='M0 {y:.1}H{WIDTH}' class='grid'/><text x='4' y='{:.1}'>{value}</text>",
                y - 3.0
            )
            .unwrap();
        }
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points: String = series
                .points
                .iter()
                .map(|(at, value)| {
                    let x = at / self.seconds as f64 * WIDTH;
                    format!("{x:.1},{:.1} ", HEIGHT - value / scale * HEIGHT)
                })
                .collect();
            write!(html, "<polyline points='{points}' stroke='{colour}'/>").unwrap();
        }
        html.push_str("</svg><ul>");
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()).take(NAMED) {
            let name = text(&series.name);
            write!(html, "<li><i style='background:{colour}'></i>{name}</li>").unwrap();
        }
        let more = self.series.len().saturating_sub(NAMED);
        if more > 0 {
            write!(html, "<li>and {more} more</li>").unwrap();
        }
        html.push_str("</ul></figure>");
    }
}

fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Returns a page with all panels.
pub fn page(panels: &[Panel]) -> String {
    let mut html = "<!doctype html><meta charset='utf-8'><style>\
        body{margin:12px;background:#f3f4f6;font:12px sans-serif;display:grid;grid-template-columns:repeat(3,1fr);gap:10px}\
        figure{margin:0;padding:8px;background:#fff;border:1px solid #ddd}\
        figcaption{font-weight:bold;margin-bottom:4px}\
        svg{display:block;width:100%;height:auto}\
        svg text{font-size:10px;fill:#666}\
        .grid{stroke:#e5e5e5}\
        polyline{fill:none;stroke-width:1.5}\
        ul{list-style:none;margin:4px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:2px 10px;color:#333}\
        i{display:inline-block;width:10px;height:3px;margin-right:4px;vertical-align:middle}\
        </style>"
        .to_owned();
    for panel in panels {
        panel.draw(&mut html);
    }
    html
}
