//! Several files of what was trained, as one.

use crate::checkpoint::Shards;
use crate::{Error, Result};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The part that a tensor belongs to: `vision` of `vision.fc1.weight`.
fn part(name: &str) -> &str {
    name.split_once('.').map_or(name, |(part, _)| part)
}

/// One safetensors file of several: what a later one has of a part (connector, ears, language model) is in the place of all
/// that those before it have of that part.
///
/// # Errors
/// For bytes that are no safetensors.
pub fn join(files: Vec<(PathBuf, Vec<u8>)>) -> Result<Vec<u8>> {
    let files = match <[_; 1]>::try_from(files) {
        Ok([(_, bytes)]) => return Ok(bytes),
        Err(files) => files,
    };
    for (path, bytes) in &files {
        // our own reader says better what is wrong and where
        Shards::from_bytes(path, bytes.clone())?;
    }
    let opened = files.iter().map(|(path, bytes)| {
        SafeTensors::deserialize(bytes).map_err(|e| Error::format(path, e.to_string()))
    });
    let opened = opened.collect::<Result<Vec<_>>>()?;
    let mut parts = BTreeMap::new();
    for file in &opened {
        let mut named: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (name, view) in file.iter() {
            let data = (view.dtype(), view.shape().to_vec(), view.data());
            named.entry(part(name)).or_default().push((name, data));
        }
        parts.extend(named);
    }
    let views = parts
        .values()
        .flatten()
        .map(|(name, (dtype, shape, data))| {
            let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data);
            Ok((
                *name,
                view.map_err(|e| Error::Input(format!("tensor {name}: {e}")))?,
            ))
        });
    let views = views.collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, None).map_err(|e| Error::Input(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use std::collections::HashMap;

    fn file(names: &[&str], value: f32) -> (PathBuf, Vec<u8>) {
        let tensor = Tensor::full(value, 3, &Device::Cpu).unwrap();
        let tensors: HashMap<_, _> = names.iter().map(|n| (n.to_string(), &tensor)).collect();
        let bytes = safetensors::serialize(tensors, None).unwrap();
        (PathBuf::from(format!("{value}.safetensors")), bytes)
    }

    #[test]
    fn a_later_part_is_in_the_place_of_an_earlier_one_as_a_whole() {
        let first = file(
            &["rows", "audio.fc1", "vision.fc1", "vision.slots.look"],
            1.0,
        );
        let joined = join(vec![first.clone(), file(&["vision.fc1", "ears.q.a"], 2.0)]).unwrap();
        let joined = candle_core::safetensors::load_buffer(&joined, &Device::Cpu).unwrap();
        let value = |name: &str| joined[name].to_vec1::<f32>().unwrap()[0];
        assert_eq!(joined.len(), 4);
        assert_eq!(
            ["rows", "audio.fc1", "vision.fc1", "ears.q.a"].map(value),
            [1.0, 1.0, 2.0, 2.0]
        );
        assert_eq!(join(vec![first.clone()]).unwrap(), first.1);
        let broken = (PathBuf::from("broken"), vec![1, 2, 3]);
        let error = join(vec![first, broken]).unwrap_err().to_string();
        assert!(error.contains("broken"), "{error}");
    }
}
