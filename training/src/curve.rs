//! The curves of a run as a picture.

use crate::record::Line;
use crate::{Error, Result};
use plotters::prelude::*;
use std::path::Path;

/// How fast the drawn loss follows the measured one.
const SMOOTHING: f64 = 0.03;

/// Loss and the measures over the updates, as SVG: states and seen phrasings on the split `valid`, unseen
/// phrasings on the items of the split `test` that are watched.
pub fn draw(path: &Path, lines: &[Line]) -> Result<()> {
    let mut smooth = None;
    let mut losses = Vec::new();
    let (mut measures, mut watched) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            Line::Update { step, loss, .. } => {
                let before = smooth.unwrap_or(*loss);
                let now = before + SMOOTHING * (loss - before);
                smooth = Some(now);
                losses.push((*step as f64, now));
            }
            Line::Valid(valid) => measures.push(valid),
            Line::Watched(test) => watched.push(test),
            Line::Resumed { .. } => {}
        }
    }
    let Some(&(last, _)) = losses.last() else {
        return Ok(());
    };
    let highest = losses.iter().map(|l| l.1).fold(0.1, f64::max);
    let series = [
        ("states", RED),
        ("answers, seen phrasings", BLUE),
        ("answers, unseen phrasings (test)", GREEN),
    ];
    let parts = |at: usize| {
        let source = if at == 2 { &watched } else { &measures };
        let points = source.iter().filter_map(move |m| {
            let part = [m.states, m.answers_seen, m.answers_unseen][at].part()?;
            Some((m.step as f64, part))
        });
        points.collect::<Vec<_>>()
    };
    let mut picture = String::new();
    {
        let failed = |e: DrawingAreaErrorKind<std::io::Error>| Error::format(path, e);
        let root = SVGBackend::with_string(&mut picture, (900, 420)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(46)
            .right_y_label_area_size(46)
            .build_cartesian_2d(0.0..last.max(1.0), 0.0..highest * 1.05)
            .map_err(failed)?
            .set_secondary_coord(0.0..last.max(1.0), 0.0..1.0);
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc("updates")
            .y_desc("loss")
            .draw()
            .map_err(failed)?;
        chart
            .configure_secondary_axes()
            .y_desc("right")
            .draw()
            .map_err(failed)?;
        chart
            .draw_series(LineSeries::new(losses, BLACK))
            .map_err(failed)?
            .label("loss")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BLACK));
        for (i, (name, colour)) in series.into_iter().enumerate() {
            chart
                .draw_secondary_series(LineSeries::new(parts(i), colour.stroke_width(2)))
                .map_err(failed)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .position(SeriesLabelPosition::MiddleRight)
            .draw()
            .map_err(failed)?;
        root.present().map_err(failed)?;
    }
    let partial = path.with_extension("partial");
    std::fs::write(&partial, picture).map_err(Error::io(&partial))?;
    std::fs::rename(&partial, path).map_err(Error::io(path))
}
