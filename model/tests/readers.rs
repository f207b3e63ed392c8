//! The readers of other people's formats: what they give, what they refuse, and that no bytes make them panic.

use candle_core::Shape;
use proptest::prelude::*;
use std::path::Path;
use vita_model::checkpoint::{CTranslate2, TorchFile};
use vita_model::nn::Source;
use vita_model::{Error, ErrorKind};

/// A file of CTranslate2 with one matrix `[2, 3]`, one count, and an alias of the matrix.
fn ctranslate2() -> Vec<u8> {
    let name = |text: &str| {
        let len = (text.len() as u16 + 1).to_le_bytes();
        [&len[..], text.as_bytes(), &[0]].concat()
    };
    let mut file = 6u32.to_le_bytes().to_vec();
    file.extend(name("WhisperSpec"));
    file.extend(3u32.to_le_bytes());
    file.extend(2u32.to_le_bytes());
    file.extend(name("a/weight"));
    file.push(2);
    file.extend([2u32, 3].map(u32::to_le_bytes).concat());
    file.push(0);
    file.extend(24u32.to_le_bytes());
    file.extend((0..6).flat_map(|i| (i as f32).to_le_bytes()));
    file.extend(name("a/heads"));
    file.extend([0, 2]);
    file.extend(2u32.to_le_bytes());
    file.extend(6i16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    file.extend(name("b/weight"));
    file.extend(name("a/weight"));
    file
}

/// A pickled text.
fn text(text: &str) -> Vec<u8> {
    let len = (text.len() as u32).to_le_bytes();
    [b"X", &len[..], text.as_bytes()].concat()
}

/// The tensors' pickle of a state dictionary with `w`, a transposed view `[2, 3]` of six floats, which a `global` builds.
fn tensors(global: &str) -> Vec<u8> {
    let tuple = |sizes: &[u8]| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|&size| [b'K', size]).collect();
        [b"(", &sizes[..], b"t"].concat()
    };
    [
        b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec(),
        text("w"),
        format!("c{global}\n((").into_bytes(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("7"),
        text("cpu"),
        b"K\x06NtQK\x00".to_vec(),
        tuple(&[2, 3]),
        tuple(&[1, 2]),
        b"\x89ccollections\nOrderedDict\n)RtRu.".to_vec(),
    ]
    .concat()
}

fn torch_file(tensors: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = b"\x80\x02M\xe9\x03.";
    let machine = b"\x80\x02}.";
    let keys = [b"\x80\x02](", &text("7")[..], b"e."].concat();
    let storage = (0..6).flat_map(|i| (i as f32).to_le_bytes());
    let storage: Vec<u8> = 6u64.to_le_bytes().into_iter().chain(storage).collect();
    [&magic[..], version, machine, tensors, &keys, &storage].concat()
}

const REBUILD: &str = "torch._utils\n_rebuild_tensor_v2";

fn file() -> &'static Path {
    Path::new("folder/model.bin")
}

/// All that a file of either kind can be asked.
fn read_all(file: &dyn Source, names: Vec<(String, Vec<usize>)>) {
    for (name, shape) in names {
        if shape.iter().product::<usize>() <= 1 << 16 {
            let _ = file.tensor(&name, &Shape::from(shape));
        }
    }
    let _ = file.tensor("a/weight", &Shape::from((2, 3)));
    let _ = file.tensor("w", &Shape::from((2, 3)));
}

fn try_ctranslate2(bytes: Vec<u8>) {
    if let Ok(file) = CTranslate2::from_bytes(file(), bytes) {
        let _ = file.integer("a/heads");
        read_all(
            &file,
            file.infos()
                .into_iter()
                .map(|i| (i.name, i.shape))
                .collect(),
        );
    }
}

fn try_torch(bytes: Vec<u8>) {
    if let Ok(file) = TorchFile::from_bytes(file(), bytes) {
        read_all(
            &file,
            file.infos()
                .into_iter()
                .map(|i| (i.name, i.shape))
                .collect(),
        );
    }
}

#[test]
fn ctranslate2_variables_come_by_name_and_by_alias() {
    let file = CTranslate2::from_bytes(file(), ctranslate2()).unwrap();
    assert_eq!(file.specification(), "WhisperSpec");
    assert_eq!(file.integer("a/heads").unwrap(), 6);
    for name in ["a/weight", "b/weight"] {
        let tensor = file.tensor(name, &Shape::from((2, 3))).unwrap();
        let rows = tensor.to_vec2::<f32>().unwrap();
        assert_eq!(rows, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    }
}

#[test]
fn ctranslate2_errors_name_file_and_tensor() {
    let whole = CTranslate2::from_bytes(file(), ctranslate2()).unwrap();
    let of = |name: &str, shape: &[usize]| whole.tensor(name, &Shape::from(shape)).unwrap_err();
    let said = |error: Error, kind, words: &[&str]| {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        for word in words.iter().chain(&["folder/model.bin"]) {
            assert!(text.contains(word), "{word} in {text}");
        }
    };
    said(of("c", &[1]), ErrorKind::Tensor, &["tensor c", "[1]"]);
    said(
        of("a/weight", &[3, 2]),
        ErrorKind::Tensor,
        &["[3, 2]", "[2, 3]"],
    );
    said(of("a/heads", &[]), ErrorKind::Tensor, &["f32", "i16"]);
    let bytes = ctranslate2();
    let cut = CTranslate2::from_bytes(file(), bytes[..60].to_vec());
    said(cut.err().unwrap(), ErrorKind::Format, &["cut off"]);
    let newer = [&7u32.to_le_bytes(), &bytes[4..]].concat();
    let newer = CTranslate2::from_bytes(file(), newer);
    said(newer.err().unwrap(), ErrorKind::Format, &["version 6", "7"]);
}

#[test]
fn a_view_of_torchs_is_read_by_its_strides() {
    let file = TorchFile::from_bytes(file(), torch_file(&tensors(REBUILD))).unwrap();
    let tensor = file.tensor("w", &Shape::from((2, 3))).unwrap();
    let rows = tensor.to_vec2::<f32>().unwrap();
    assert_eq!(rows, [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]);
}

#[test]
fn other_globals_are_refused_by_name() {
    for global in [
        "os\nsystem",
        "builtins\neval",
        "torch._utils\n_rebuild_parameter",
    ] {
        let error = TorchFile::from_bytes(file(), torch_file(&tensors(global)));
        let error = error.err().unwrap().to_string();
        assert!(error.contains(&global.replace('\n', ".")), "{error}");
        assert!(
            error.contains("refused") && error.contains("folder/model.bin"),
            "{error}"
        );
    }
}

#[test]
fn what_is_nested_without_end_is_refused() {
    let deep = [b"\x80\x02)", &vec![0x85; 1 << 20][..], b"."].concat();
    assert!(TorchFile::from_bytes(file(), deep.clone()).is_err());
    assert!(TorchFile::from_bytes(file(), torch_file(&deep)).is_err());
    let lists = [
        b"\x80\x02",
        &vec![b']'; 1 << 19][..],
        &vec![b'a'; 1 << 19],
        b".",
    ]
    .concat();
    assert!(TorchFile::from_bytes(file(), torch_file(&lists)).is_err());
}

#[test]
fn a_view_beyond_its_storage_is_refused() {
    let strides = tensors(REBUILD);
    let at = strides
        .windows(2)
        .rposition(|pair| pair == [b'K', 2])
        .unwrap();
    for stride in [3, 200] {
        let mut far = strides.clone();
        far[at + 1] = stride;
        let error = TorchFile::from_bytes(file(), torch_file(&far))
            .err()
            .unwrap();
        assert!(error.to_string().contains("tensor w"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_the_readers_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let damage = |mut bytes: Vec<u8>| {
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        };
        try_ctranslate2(damage(ctranslate2()));
        try_torch(damage(torch_file(&tensors(REBUILD))));
    }

    #[test]
    fn no_program_for_the_pickle_machine_makes_it_panic(
        steps in proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(b"(Nt)]}aesuqhrjcQRbKMJX.\x80\x88\x89\x85\x86\x87\x8a".to_vec()).prop_map(|b| vec![b]),
                any::<u8>().prop_map(|b| vec![b]),
                Just(b"ccollections\nOrderedDict\n)R".to_vec()),
                Just(b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec()),
                Just(text("storage")),
            ],
            0..60,
        ),
    ) {
        let program = [b"\x80\x02", &steps.concat()[..], b"."].concat();
        try_torch(torch_file(&program));
        try_torch(program);
    }
}
