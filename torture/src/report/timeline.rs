//! A picture of the run: each delivery by when it was sent and how long it took, on a logarithmic
//! scale, over the faults.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use crate::history::{Entry, Event, SendNumber};

const WIDTH: f64 = 1600.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const LABELS: f64 = 190.0; // above the plot, for the faults' names
const TOP_SECONDS: f64 = 100.0;
const BOTTOM_SECONDS: f64 = 0.001;

/// The SVG.
pub(super) fn picture(entries: &[Entry]) -> String {
    let end = entries.last().map_or(1, |Entry(at, _)| (*at).max(1)) as f64 / 1e6;
    let x = |seconds: f64| LEFT + seconds / end * WIDTH;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{}" height="{}" font-family="sans-serif" font-size="11">"#,
        LEFT + WIDTH + 20.0,
        LABELS + HEIGHT + 40.0
    );
    svg.push_str(r#"<rect width="100%" height="100%" fill="white"/>"#);
    faults(&mut svg, entries, x);
    axes(&mut svg, end, x);
    let mut drawn = HashSet::new();
    for (sent, latency) in deliveries(entries) {
        let (x, y) = (x(sent), y(latency));
        // Thousands of dots on one place look like one.
        if drawn.insert(((x * 2.0) as u32, (y * 2.0) as u32)) {
            let _ = write!(svg, r##"<circle cx="{x:.1}" cy="{y:.1}" r="1.2" fill="#1f5fa8"/>"##);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn y(seconds: f64) -> f64 {
    let share = (seconds.max(BOTTOM_SECONDS) / BOTTOM_SECONDS).log10()
        / (TOP_SECONDS / BOTTOM_SECONDS).log10();
    LABELS + HEIGHT * (1.0 - share)
}

fn axes(svg: &mut String, end: f64, x: impl Fn(f64) -> f64) {
    for (seconds, label) in [
        (0.001, "1 ms"),
        (0.01, "10 ms"),
        (0.1, "100 ms"),
        (1.0, "1 s"),
        (10.0, "10 s"),
        (100.0, "100 s"),
    ] {
        let y = y(seconds);
        let _ = write!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{label}</text>"##,
            LEFT + WIDTH,
            LEFT - 6.0,
            y + 4.0
        );
    }
    let step =
        [5.0, 10.0, 30.0, 60.0, 120.0].into_iter().find(|step| end / step < 20.0).unwrap_or(300.0);
    let mut seconds = 0.0;
    while seconds <= end {
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{seconds} s</text>"#,
            x(seconds),
            LABELS + HEIGHT + 18.0
        );
        seconds += step;
    }
    let _ = write!(
        svg,
        r#"<text x="{LEFT}" y="{}">from the first attempt of a send to each delivery, over the faults (red: until healed; orange: until the last client had everything)</text>"#,
        LABELS + HEIGHT + 34.0
    );
}

fn faults(svg: &mut String, entries: &[Entry], x: impl Fn(f64) -> f64) {
    let mut begun: HashMap<usize, (f64, &str)> = HashMap::new();
    let mut healed: HashMap<usize, f64> = HashMap::new();
    for Entry(at, event) in entries {
        let now = *at as f64 / 1e6;
        match event {
            Event::Inject { fault, name, .. } => {
                begun.insert(*fault, (now, name));
            }
            Event::Healed { fault } => {
                healed.insert(*fault, now);
                if let Some((began, name)) = begun.get(fault) {
                    band(svg, x(*began), x(now), "#e57373");
                    let (x, y) = (x(*began) + 8.0, LABELS - 6.0);
                    let _ = write!(
                        svg,
                        r#"<text x="{x:.1}" y="{y}" transform="rotate(-60 {x:.1} {y})">{name}</text>"#
                    );
                }
            }
            Event::Recovered { fault, .. } | Event::NotRecovered { fault, .. } => {
                if let Some(since) = healed.get(fault) {
                    band(svg, x(*since), x(now), "#ffcc80");
                }
            }
            _ => {}
        }
    }
}

fn band(svg: &mut String, from: f64, to: f64, colour: &str) {
    let width = (to - from).max(0.5);
    let _ = write!(
        svg,
        r#"<rect x="{from:.1}" y="{LABELS}" width="{width:.1}" height="{HEIGHT}" fill="{colour}" opacity="0.55"/>"#
    );
}

/// When each was sent, and how long it took to each client, in seconds.
fn deliveries(entries: &[Entry]) -> Vec<(f64, f64)> {
    let mut sent: HashMap<SendNumber, u64> = HashMap::new();
    let mut deliveries = Vec::new();
    for Entry(at, event) in entries {
        match event {
            Event::Attempt { send, attempt: 1, .. } => {
                sent.insert(*send, *at);
            }
            Event::Frame { raw, .. } => {
                let number = raw
                    .split_once("data: {\"n\":")
                    .and_then(|(_, rest)| rest.split(',').next()?.parse::<SendNumber>().ok());
                if let Some(began) = number.and_then(|number| sent.get(&number)) {
                    deliveries.push((*began as f64 / 1e6, (at - began) as f64 / 1e6));
                }
            }
            _ => {}
        }
    }
    deliveries
}
