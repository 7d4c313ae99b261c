//! Curves as an SVG that needs nothing else: one panel each, both axes logarithmic.

use super::scale::{Curve, Point};

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 200.0;
const MARGIN: f64 = 48.0;
const COLUMNS: usize = 3;

/// Throughput (blue) and CPU per webhook (red) of each curve.
pub fn svg(curves: &[Curve]) -> String {
    let rows = curves.len().div_ceil(COLUMNS);
    let (width, height) = (WIDTH * COLUMNS as f64, HEIGHT * rows as f64);
    let mut svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' \
         font-family='sans-serif' font-size='11'>\n<rect width='100%' height='100%' fill='white'/>\n"
    );
    for (n, curve) in curves.iter().enumerate() {
        let (left, top) = ((n % COLUMNS) as f64 * WIDTH, (n / COLUMNS) as f64 * HEIGHT);
        svg.push_str(&format!("<g transform='translate({left} {top})'>"));
        panel(&mut svg, curve);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, curve: &Curve) {
    svg.push_str(&format!(
        "<text x='{MARGIN}' y='18' font-weight='bold'>{}</text>",
        curve.what
    ));
    line(svg, curve, "#2563eb", 34.0, "webhooks/s", |point| {
        point.per_second
    });
    line(svg, curve, "#dc2626", 48.0, "CPU µs each", |point| {
        point.cpu_us
    });
    for point in &curve.points {
        let x = place(
            point.x,
            extent(curve, |point| point.x),
            MARGIN,
            WIDTH - 20.0,
        );
        svg.push_str(&format!(
            "<text x='{x:.0}' y='{}' text-anchor='middle' fill='#555'>{}</text>",
            HEIGHT - 8.0,
            short(point.x)
        ));
    }
}

fn line(svg: &mut String, curve: &Curve, colour: &str, y: f64, name: &str, of: fn(&Point) -> f64) {
    let (xs, ys) = (extent(curve, |point| point.x), extent(curve, of));
    let points: Vec<_> = curve
        .points
        .iter()
        .map(|point| {
            let x = place(point.x, xs, MARGIN, WIDTH - 20.0);
            let y = place(of(point), ys, HEIGHT - 36.0, 64.0);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    svg.push_str(&format!(
        "<polyline fill='none' stroke='{colour}' stroke-width='2' points='{}'/>\
         <text x='{MARGIN}' y='{y}' fill='{colour}'>{name}: {} to {}</text>",
        points.join(" "),
        short(ys.0),
        short(ys.1)
    ));
}

fn extent(curve: &Curve, of: fn(&Point) -> f64) -> (f64, f64) {
    let values = curve.points.iter().map(of);
    values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (least.min(value), most.max(value))
    })
}

fn place(value: f64, (least, most): (f64, f64), from: f64, to: f64) -> f64 {
    let log = |value: f64| value.max(0.1).ln();
    let span = (log(most) - log(least)).max(1e-9);
    from + (to - from) * (log(value) - log(least)) / span
}

fn short(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.1}M", value / 1e6)
    } else if value >= 1e4 {
        format!("{:.0}k", value / 1e3)
    } else if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}
