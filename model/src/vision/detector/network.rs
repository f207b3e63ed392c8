//! SSD on MobileNetV2 for pictures of 300², as in TensorFlow's object detection library.

use crate::Result;
use crate::nn::Weights;
use crate::vision::conv::{Conv, Layer};
use crate::vision::residual::InvertedResidual;
use candle_core::Tensor;

/// Side of the pictures, which are resized without regard for their shape.
pub const PICTURE_SIDE: usize = 300;

/// Pixels are normalised to [−1, 1].
pub const MEAN: [f64; 3] = [0.5; 3];
pub const STD: [f64; 3] = [0.5; 3];

pub(crate) const STEM: Layer = Layer::dense(3, 32, 3, 2);

/// Expansion, channels, stride, repeats of each stage.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 2, 3),
    (6, 64, 2, 4),
    (6, 96, 1, 3),
    (6, 160, 2, 3),
    (6, 320, 1, 1),
];

pub(crate) const HEAD: Layer = Layer::pointwise(320, 1280);

/// Block whose expanded map is the first to be looked at for objects.
pub(crate) const FIRST_MAP_BLOCK: usize = 13;

/// What follows the head: fewer channels, then a map of half the side.
pub(crate) const EXTRAS: [(Layer, Layer); 4] = [
    (Layer::pointwise(1280, 256), Layer::dense(256, 512, 3, 2)),
    (Layer::pointwise(512, 128), Layer::dense(128, 256, 3, 2)),
    (Layer::pointwise(256, 128), Layer::dense(128, 256, 3, 2)),
    (Layer::pointwise(256, 64), Layer::dense(64, 128, 3, 2)),
];

/// Channels and side of each map that is looked at for objects, and the boxes at each of its positions.
pub(crate) const MAPS: [(usize, usize, usize); 6] = [
    (576, 19, 3),
    (1280, 10, 6),
    (512, 5, 6),
    (256, 3, 6),
    (256, 2, 6),
    (128, 1, 6),
];

/// The convolutions of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub expand: Option<Layer>,
    pub depthwise: Layer,
    pub project: Layer,
}

impl Block {
    pub fn residual(&self) -> bool {
        let inputs = self.expand.map_or(self.depthwise.inputs, |e| e.inputs);
        self.depthwise.stride == 1 && inputs == self.project.outputs
    }
}

/// All blocks, in order.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut inputs = STEM.outputs;
    for (expansion, outputs, stride, repeats) in STAGES {
        for repeat in 0..repeats {
            let inner = inputs * expansion;
            let stride = if repeat == 0 { stride } else { 1 };
            blocks.push(Block {
                expand: (expansion > 1).then(|| Layer::pointwise(inputs, inner)),
                depthwise: Layer::depthwise(inner, 3, stride),
                project: Layer::pointwise(inner, outputs).linear(),
            });
            inputs = outputs;
        }
    }
    blocks
}

/// The predictors of a map: of boxes, of classes (none of them included).
pub(crate) fn predictors(map: usize, classes: usize) -> (Layer, Layer) {
    let (channels, _, boxes) = MAPS[map];
    (
        Layer::pointwise(channels, 4 * boxes).linear(),
        Layer::pointwise(channels, classes * boxes).linear(),
    )
}

#[derive(Debug, Clone)]
pub struct SsdMobileNetV2 {
    stem: Conv,
    blocks: Vec<InvertedResidual>,
    head: Conv,
    extras: Vec<(Conv, Conv)>,
    predictors: Vec<(Conv, Conv)>,
    classes: usize,
}

/// What the network says of each anchor of each picture.
#[derive(Debug, Clone)]
pub struct Raw {
    /// `[n, anchors, 4]`: centre down, centre across, height, width, coded against the anchor.
    pub boxes: Tensor,
    /// `[n, anchors, classes]`: logits, the first that of nothing.
    pub classes: Tensor,
}

impl SsdMobileNetV2 {
    /// `classes` includes that of nothing. Names: `stem`, `blocks.N.{expand, depthwise, project}`, `head`, `extras.N.{reduce,
    /// filter}`, `predictors.N.{boxes, classes}`, each `.weight` and `.bias`.
    pub fn new(classes: usize, w: &Weights) -> Result<Self> {
        let block = |(i, block): (usize, Block)| {
            let w = w.pp("blocks").pp(i);
            let expand = block.expand.map(|layer| Conv::new(layer, &w.pp("expand")));
            Ok(InvertedResidual {
                expand: expand.transpose()?,
                depthwise: Conv::new(block.depthwise, &w.pp("depthwise"))?,
                project: Conv::new(block.project, &w.pp("project"))?,
                residual: block.residual(),
            })
        };
        let extra = |(i, (reduce, filter)): (usize, (Layer, Layer))| {
            let w = w.pp("extras").pp(i);
            Ok((
                Conv::new(reduce, &w.pp("reduce"))?,
                Conv::new(filter, &w.pp("filter"))?,
            ))
        };
        let predictor = |i| {
            let w = w.pp("predictors").pp(i);
            let (boxes, kinds) = predictors(i, classes);
            Ok((
                Conv::new(boxes, &w.pp("boxes"))?,
                Conv::new(kinds, &w.pp("classes"))?,
            ))
        };
        let blocks = blocks().into_iter().enumerate().map(block);
        let extras = EXTRAS.into_iter().enumerate().map(extra);
        Ok(Self {
            stem: Conv::new(STEM, &w.pp("stem"))?,
            blocks: blocks.collect::<Result<_>>()?,
            head: Conv::new(HEAD, &w.pp("head"))?,
            extras: extras.collect::<Result<_>>()?,
            predictors: (0..MAPS.len()).map(predictor).collect::<Result<_>>()?,
            classes,
        })
    }

    /// `[n, 3, 300, 300]` → what is said of each anchor.
    pub fn forward(&self, pixels: &Tensor) -> Result<Raw> {
        let maps = self.maps(&pixels.permute((0, 2, 3, 1))?.contiguous()?)?;
        let n = pixels.dim(0)?;
        let (mut boxes, mut classes) = (Vec::new(), Vec::new());
        for (map, (of_boxes, of_classes)) in maps.iter().zip(&self.predictors) {
            boxes.push(of_boxes.forward(map)?.reshape((n, (), 4))?);
            classes.push(of_classes.forward(map)?.reshape((n, (), self.classes))?);
        }
        Ok(Raw {
            boxes: Tensor::cat(&boxes, 1)?,
            classes: Tensor::cat(&classes, 1)?,
        })
    }

    fn maps(&self, pixels: &Tensor) -> Result<Vec<Tensor>> {
        let mut maps = Vec::with_capacity(MAPS.len());
        let mut xs = self.stem.forward(pixels)?;
        for (i, block) in self.blocks.iter().enumerate() {
            let expanded = block.expanded(&xs)?;
            xs = block.finish(&xs, &expanded)?;
            if i == FIRST_MAP_BLOCK {
                maps.push(expanded);
            }
        }
        maps.push(self.head.forward(&xs)?);
        for (reduce, filter) in &self.extras {
            let last = &maps[maps.len() - 1];
            maps.push(filter.forward(&reduce.forward(last)?)?);
        }
        Ok(maps)
    }
}
