//! Tiling, resampling, the processor, InternViT and the visual connector (`image.safetensors`,
//! `tiles_<size>.png`, `tiling.json`).

use crate::support::{EXACT, Folder, Report, STAGE, Seen, Tensors, picture_tensor, say};
use candle_core::Tensor;
use image::RgbImage;
use vita_model::Result;
use vita_model::connector::{MlpProjector, shuffle_pixels, visual_tokens};
use vita_model::image::{FrameFit, Tiling, TilingRule};
use vita_model::image::{flip_horizontal, pad_to_square, resize_bicubic};
use vita_model::vision::InternVit;

#[test]
fn golden_image_tiles_and_pixels() {
    let folder = Folder::find();
    let Some(tensors) = folder.tensors("image.safetensors") else {
        return say("no image.safetensors: skipped");
    };
    let (config, _) = folder.model();
    let processor = &config.image_processor;
    let mut report = Report::new("image");
    for (name, golden) in tensors.with_prefix("tiles_u8_") {
        let picture = picture_of(&folder, name);
        let tiling = recorded_tiling(&picture, processor.crop, name, golden.dim(0).unwrap());
        let tiles: Vec<_> = tiling.cut(&picture);
        let ours: Vec<_> = tiles.iter().map(picture_tensor).collect();
        report.try_close(&format!("tiles_u8_{name}"), stack(&ours), golden, EXACT);
        if let Some(golden) = tensors.get(&format!("pixel_values_{name}")) {
            let ours = processor.batch(&tiles);
            report.try_close(&format!("pixel_values_{name}"), ours, golden, EXACT);
        }
    }
    for (name, golden) in tensors.with_prefix("frame") {
        let Some((index, kind)) = name.split_once('_') else {
            continue;
        };
        let frame = folder.picture(&format!("frame_{index}.png")).expect(name);
        let ours = match kind {
            "square" => processor.frame(&frame, FrameFit::Crop),
            "pad" => processor.frame(&frame, FrameFit::Pad),
            "pad_u8" => Ok(picture_tensor(&pad_to_square(
                &frame,
                processor.mean_colour(),
            ))),
            _ => continue,
        };
        report.try_close(&format!("frame{name}"), ours, golden, EXACT);
    }
    for (name, golden) in tensors.with_prefix("resize_") {
        let (width, height) = name.split_once('x').unwrap();
        let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
        let ours = resize_bicubic(&picture_of(&folder, "a"), width, height);
        report.close(
            &format!("resize_{name}"),
            &picture_tensor(&ours),
            golden,
            EXACT,
        );
    }
    for (name, golden) in tensors.with_prefix("horizontal_flip_") {
        let ours = picture_tensor(&flip_horizontal(&picture_of(&folder, name)));
        report.close(&format!("horizontal_flip_{name}"), &ours, golden, EXACT);
    }
    report.finish();
}

/// `a_max1` is a cutting of `image_a.png`.
fn picture_of(folder: &Folder, name: &str) -> RgbImage {
    let base = name.split('_').next().unwrap_or(name);
    let file = format!("image_{base}.png");
    folder
        .picture(&file)
        .unwrap_or_else(|| panic!("inputs/{file} is missing"))
}

/// The rule is recorded in the name (`_max<n>`) or, failing that, by the number of tiles alone.
fn recorded_tiling(picture: &RgbImage, size: u32, name: &str, tiles: usize) -> Tiling {
    let stated = name.split("_max").nth(1).and_then(|n| n.parse().ok());
    let candidates = match stated {
        Some(max) => vec![max],
        None => [12, 6].into_iter().chain(1..=40).collect(),
    };
    let choose = |max_tiles| {
        let rule = TilingRule {
            max_tiles,
            ..TilingRule::default()
        };
        Tiling::choose(picture.width(), picture.height(), size, rule)
    };
    let mut tilings = candidates.into_iter().map(choose);
    tilings
        .find(|t| t.count() == tiles)
        .unwrap_or_else(|| panic!("{name}: no rule gives {tiles} tiles"))
}

fn stack(tensors: &[Tensor]) -> Result<Tensor> {
    Ok(Tensor::stack(tensors, 0)?)
}

#[test]
fn golden_image_tiles_of_the_full_size() {
    let folder = Folder::find();
    let mut report = Report::new("tiles");
    let entries = std::fs::read_dir(&folder.root).unwrap();
    for name in entries.map(|e| e.unwrap().file_name().into_string().unwrap()) {
        let size = name
            .strip_prefix("tiles_")
            .and_then(|n| n.strip_suffix(".png"));
        let Some(size) = size.and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let golden = image::open(folder.path(&name)).unwrap().to_rgb8();
        let picture = picture_of(&folder, &size.to_string());
        let tiles = (golden.width() / size) as usize;
        let mut ours = RgbImage::new(golden.width(), golden.height());
        let tiling = recorded_tiling(&picture, size, &name, tiles);
        for (i, tile) in tiling.cut(&picture).iter().enumerate() {
            image::imageops::replace(&mut ours, tile, i as i64 * i64::from(size), 0);
        }
        report.close(
            &name,
            &picture_tensor(&ours),
            &picture_tensor(&golden),
            EXACT,
        );
    }
    if folder.path("tiles_448.png").is_file() {
        report.finish();
    }
}

#[test]
fn golden_image_tiling_table() {
    let folder = Folder::find();
    let Some(table) = folder.json("tiling.json") else {
        return say("no tiling.json: skipped");
    };
    let (mut ours, mut golden) = (Vec::new(), Vec::new());
    for row in table.as_array().unwrap() {
        let number = |key: &str| row[key].as_u64().unwrap() as u32;
        let rule = TilingRule {
            min_tiles: number("min_num"),
            max_tiles: number("max_num"),
            thumbnail: true,
        };
        let t = Tiling::choose(number("w"), number("h"), number("image_size"), rule);
        ours.push((t.columns, t.rows, t.count() as u32));
        golden.push((
            number("cols"),
            number("rows"),
            number("tiles_with_thumbnail"),
        ));
    }
    let mut report = Report::new("tiling");
    report.equal("columns, rows, tiles", &ours, &golden);
    report.finish();
}

#[test]
fn golden_image_vision_tower_and_connector() {
    let folder = Folder::find();
    let Some(tensors) = folder.tensors("image.safetensors") else {
        return say("no image.safetensors: skipped");
    };
    let (config, weights) = folder.model();
    let vit = InternVit::new(
        &config.vision,
        &weights.pp("model.vision_tower.vision_tower"),
    )
    .unwrap();
    let width = 4 * config.vision.hidden_size;
    let depth = config.projector_depth;
    let w = weights.pp("model.mm_projector");
    let projector = MlpProjector::new(depth, width, config.lm.hidden_size, &w).unwrap();
    let mut report = Report::new("image");
    if let Some(input) = tensors.get("vit.input") {
        compare_tower(&vit, &projector, input, &tensors, &mut report);
    }
    if let (Some(input), Some(golden)) = pair(&tensors, "posinterp_in", "posinterp_embeddings") {
        report.try_close("posinterp_embeddings", vit.embed(input), golden, STAGE);
    }
    if let (Some(input), Some(golden)) = pair(&tensors, "pixel_shuffle_in", "pixel_shuffle_out") {
        report.try_close("pixel_shuffle_out", shuffle_pixels(input), golden, EXACT);
    }
    report.finish();
}

fn pair<'a>(tensors: &'a Tensors, a: &str, b: &str) -> (Option<&'a Tensor>, Option<&'a Tensor>) {
    (tensors.get(a), tensors.get(b))
}

fn compare_tower(
    vit: &InternVit,
    projector: &MlpProjector,
    input: &Tensor,
    tensors: &Tensors,
    report: &mut Report,
) {
    let mut seen = Seen::default();
    let work = seen.during(|probe| -> Result<()> {
        let tokens = visual_tokens(&vit.forward(input, probe)?)?;
        probe.see(format_args!("tower_out"), &tokens);
        let projected = projector.forward(&tokens)?;
        probe.see(format_args!("projector_out"), &projected);
        Ok(())
    });
    if let Err(e) = work {
        return report.fail(format!("vit: {e}"));
    }
    for (stage, golden) in tensors.with_prefix("vit.") {
        match (stage, seen.0.get(stage)) {
            ("input", _) => {}
            (_, Some(ours)) => report.close(&format!("vit.{stage}"), ours, golden, STAGE),
            (_, None) => report.fail(format!("vit.{stage}: a stage that the tower does not have")),
        }
    }
}
