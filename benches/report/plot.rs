//! The figures as a picture: what is compared, and how it goes with callers and with clients.

use std::{error::Error, path::Path};

use anyhow::anyhow;
use plotters::{coord::Shift, prelude::*};

use super::results::Row;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

const INK: RGBColor = RGBColor(40, 40, 40);
const LINE: RGBColor = RGBColor(200, 60, 40);
const COLORS: [(&str, RGBColor); 2] = [
    ("sqlite", RGBColor(70, 130, 180)),
    ("postgres", RGBColor(90, 150, 90)),
];
const BAR: i32 = 24;

/// Writes an SVG file.
pub fn write(path: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let compared: Vec<&Row> = rows
        .iter()
        .filter(|row| row.ratio.is_some() && !row.case.contains('-'))
        .collect();
    let bars = u32::try_from(60 + BAR * i32::try_from(compared.len())?)?;
    let area = SVGBackend::new(path, (900, bars + 560)).into_drawing_area();
    let draw = || -> Drawn {
        area.fill(&WHITE)?;
        let (upper, lower) = area.split_vertically(bars);
        ratios(&upper, &compared)?;
        let (callers, clients) = lower.split_vertically(280);
        lines(&callers, "tokens a second, by callers", "callers-", rows)?;
        lines(
            &clients,
            "tokens a second, by clients and grants",
            "growth-",
            rows,
        )?;
        Ok(area.present()?)
    };
    draw().map_err(|error| anyhow!("{error}"))
}

fn color(database: Option<&str>) -> RGBColor {
    let known = COLORS.iter().find(|(name, _)| database == Some(name));
    known.map_or(INK, |(_, color)| *color)
}

/// A bar for each ratio, and a stroke where its limit is.
fn ratios(area: &Area<'_>, rows: &[&Row]) -> Drawn {
    const LEFT: i32 = 180;
    const WIDTH: f64 = 600.0;
    let font = ("sans-serif", 14).into_font().color(&INK);
    area.draw(&Text::new(
        "throughput, as a part of a bare server's",
        (10, 10),
        font.clone(),
    ))?;
    for (row, top) in rows.iter().zip((40..).step_by(BAR as usize)) {
        let ratio = row.ratio.unwrap_or_default();
        let x = |ratio: f64| LEFT + (ratio.min(1.1) * WIDTH) as i32;
        let label = format!("{} {}", row.case, row.database.unwrap_or_default());
        area.draw(&Text::new(label, (10, top), font.clone()))?;
        let fill = color(row.database).filled();
        area.draw(&Rectangle::new([(LEFT, top), (x(ratio), top + BAR - 8)], fill))?;
        area.draw(&Text::new(
            format!("{ratio:.2}"),
            (x(ratio) + 5, top),
            font.clone(),
        ))?;
        if let Some(limit) = row.limit {
            let stroke = vec![(x(limit), top - 3), (x(limit), top + BAR - 5)];
            area.draw(&PathElement::new(stroke, LINE.stroke_width(2)))?;
        }
    }
    Ok(())
}

/// A line for each database; the number at the end of a case's name is where it stands.
fn lines(area: &Area<'_>, title: &str, prefix: &str, rows: &[Row]) -> Drawn {
    let points: Vec<(Option<&str>, f64, f64)> = rows
        .iter()
        .filter_map(|row| {
            let number: f64 = row.case.strip_prefix(prefix)?.parse().ok()?;
            Some((row.database, number, row.per_second))
        })
        .collect();
    let (Some(least), Some(most)) = (
        points.iter().map(|point| point.1).min_by(f64::total_cmp),
        points.iter().map(|point| point.1).max_by(f64::total_cmp),
    ) else {
        return Ok(());
    };
    let highest = points.iter().map(|point| point.2).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 14))
        .margin(10)
        .margin_right(40)
        .x_label_area_size(25)
        .y_label_area_size(60)
        .build_cartesian_2d((least..most * 1.01).log_scale(), 0.0..highest * 1.1)?;
    let whole = |number: &f64| format!("{number:.0}");
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .draw()?;
    for (name, color) in COLORS {
        let own = points.iter().filter(|point| point.0 == Some(name));
        let own: Vec<(f64, f64)> = own.map(|point| (point.1, point.2)).collect();
        if own.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(own.clone(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], color.filled()));
        chart.draw_series(own.into_iter().map(|point| Circle::new(point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(INK)
        .draw()?;
    Ok(())
}
