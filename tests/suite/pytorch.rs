//! PyTorch checkpoints: what they hold, and what hostile ones get.

use std::path::{Path, PathBuf};

use negatoscope::import::pytorch::{Checkpoint, Dtype, Error, Value};
use proptest::prelude::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/pytorch")
        .join(name)
}

fn open_bytes(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open(&path)
}

fn expected(part: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(golden("expected.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    all[part].as_array().unwrap().clone()
}

/// The weights of a golden file equal what PyTorch says they are, to the last bit.
fn check_weights(file: &str, part: &str) {
    let checkpoint = Checkpoint::open(&golden(file)).unwrap();
    let weights = checkpoint.weights().unwrap();
    let expected = expected(part);
    assert_eq!(weights.len(), expected.len());
    for ((name, tensor), truth) in weights.into_iter().zip(&expected) {
        assert_eq!(name, truth["name"].as_str().unwrap());
        let shape: Vec<u64> = tensor.shape().iter().map(|&n| n as u64).collect();
        assert_eq!(serde_json::json!(shape), truth["shape"], "{name}");
        let dtype = match tensor.dtype() {
            Dtype::F64 => "float64",
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
            Dtype::I64 => "int64",
            Dtype::I32 => "int32",
            Dtype::I16 => "int16",
            Dtype::I8 => "int8",
            Dtype::U8 => "uint8",
            Dtype::Bool => "bool",
            _ => panic!("a new kind"),
        };
        assert_eq!(dtype, truth["dtype"].as_str().unwrap(), "{name}");
        let values = checkpoint.weights_f32(name, tensor).unwrap();
        let truth: Vec<f32> = truth["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap() as f32)
            .collect();
        assert_eq!(values, truth, "{name}");
    }
}

#[test]
fn weights_equal_what_pytorch_wrote_in_every_form() {
    check_weights("zip.pth", "weights");
    check_weights("legacy.pth", "weights");
    check_weights("protocol4.ckpt", "weights");
    check_weights("bare.pt", "bare");
}

#[test]
fn plain_values_beside_the_weights_are_read() {
    for file in ["zip.pth", "legacy.pth"] {
        let checkpoint = Checkpoint::open(&golden(file)).unwrap();
        let root = checkpoint.root();
        let at = |path: &[&str]| {
            path.iter()
                .fold(root, |value, key| value.get(key).expect(key))
        };
        assert_eq!(at(&["trainer_name"]).as_str(), Some("nnUNetTrainer"));
        assert!(at(&["grad_scaler_state"]).is_none());
        assert_eq!(at(&["current_epoch"]).as_int(), Some(3));
        // A NumPy scalar.
        assert_eq!(at(&["_best_ema"]).as_float(), Some(0.75));
        assert_eq!(at(&["init_args", "device"]).as_str(), Some("cpu"));
        assert_eq!(at(&["init_args", "plans", "name"]).as_str(), Some("größer"));
        let axes: Vec<_> = at(&["inference_allowed_mirroring_axes"])
            .as_list()
            .unwrap()
            .iter()
            .map(|v| v.as_int().unwrap())
            .collect();
        assert_eq!(axes, [0, 1, 2]);
        let dice = at(&["logging", "mean_fg_dice"]).as_list().unwrap();
        assert_eq!(dice[0].as_float(), Some(0.5));
        assert_eq!(dice[1].as_float(), Some(0.25));
        assert!(matches!(at(&["others", "set"]), Value::Set(items) if items.len() == 1));
        assert!(matches!(at(&["others", "bytes"]), Value::Bytes(bytes) if **bytes == [0, 255]));
        assert!(matches!(at(&["others", "wide"]), Value::Int(v) if *v == 1 << 70));
        assert_eq!(at(&["others", "negative"]).as_int(), Some(-(1 << 40)));
        assert_eq!(
            at(&["others", "flags"]).as_list().unwrap()[0].as_bool(),
            Some(true)
        );
        assert_eq!(at(&["others", "dtype"]).as_str(), Some("torch.float16"));
        assert_eq!(at(&["others", "size"]).as_list().unwrap().len(), 2);
        let Value::Array(array) = at(&["others", "array"]) else {
            panic!("no array");
        };
        assert_eq!(array.shape(), [2, 3]);
        // Stored in Fortran's order, given in row-major order.
        assert_eq!(array.to_f64().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let checkpoint = Checkpoint::open(&golden("nan.pth")).unwrap();
    let weights = checkpoint.weights().unwrap();
    let refusals: Vec<String> = weights
        .iter()
        .filter_map(|(name, tensor)| checkpoint.weights_f32(name, tensor).err())
        .map(|e| e.to_string())
        .collect();
    assert_eq!(refusals.len(), 1);
    assert!(
        refusals[0].contains("bad.weight holds NaN at element 4"),
        "{}",
        refusals[0]
    );
    assert!(checkpoint.tensor_f32(weights[1].1).unwrap()[4].is_nan());
}

fn check_refused(result: Result<Checkpoint, Error>, expected: &str) {
    let message = result.expect_err(expected).to_string();
    assert!(message.contains(expected), "{message:?}, not {expected:?}");
}

#[test]
fn programs_are_refused_by_name() {
    check_refused(Checkpoint::open(&golden("script.pt")), "TorchScript");
    check_refused(
        Checkpoint::open(&golden("module.pth")),
        "torch.nn.modules.activation.ReLU",
    );
}

#[test]
fn other_files_are_refused() {
    check_refused(open_bytes(b""), "no PyTorch checkpoint");
    check_refused(
        open_bytes(b"hello world, not weights"),
        "no PyTorch checkpoint",
    );
    check_refused(open_bytes(b"\x80\x02}."), "no PyTorch checkpoint");
    check_refused(open_bytes(b"PK\x03\x04"), "no directory");
    check_refused(
        Checkpoint::open(Path::new("/nowhere/model.pth")),
        "could not be read",
    );
}

// ---- hostile files -------------------------------------------------------------------------------

struct Entry {
    name: String,
    own_name: String,
    data: Vec<u8>,
    declared: u32,
    method: u16,
    /// Where the directory says that the entry starts, if not where it does.
    header: Option<u32>,
}

fn entry(name: &str, data: &[u8]) -> Entry {
    Entry {
        name: name.to_owned(),
        own_name: name.to_owned(),
        data: data.to_vec(),
        declared: data.len() as u32,
        method: 0,
        header: None,
    }
}

/// A ZIP archive written by hand, so that it can lie.
fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for e in entries {
        let header = e.header.unwrap_or(out.len() as u32);
        out.extend(b"PK\x03\x04\x00\x00\x00\x00");
        out.extend(e.method.to_le_bytes());
        out.extend([0; 8]);
        out.extend(e.declared.to_le_bytes());
        out.extend(e.declared.to_le_bytes());
        out.extend((e.own_name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(e.own_name.as_bytes());
        out.extend(&e.data);
        directory.extend(b"PK\x01\x02\x00\x00\x00\x00\x00\x00");
        directory.extend(e.method.to_le_bytes());
        directory.extend([0; 8]);
        directory.extend(e.declared.to_le_bytes());
        directory.extend(e.declared.to_le_bytes());
        directory.extend((e.name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(header.to_le_bytes());
        directory.extend(e.name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\x00\x00\x00\x00");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0; 2]);
    out
}

fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    zip(&[
        entry("archive/data.pkl", pickle),
        entry("archive/data/0", &[0; 16]),
    ])
}

fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    with_pickle(&[b"\x80\x02".as_slice(), &parts.concat(), b"."].concat())
}

fn text(text: &str) -> Vec<u8> {
    [
        b"X".as_slice(),
        &(text.len() as u32).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

fn size(value: i32) -> Vec<u8> {
    [b"J".as_slice(), &value.to_le_bytes()].concat()
}

/// A tensor that views the storage `data/0` of 16 bytes.
fn tensor(class: &str, count: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let sizes = |values: &[i32]| {
        let all: Vec<u8> = values.iter().flat_map(|&v| size(v)).collect();
        [b"(".as_slice(), &all, b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(".as_slice(),
        b"(",
        &text("storage"),
        format!("ctorch\n{class}\n").as_bytes(),
        &text("0"),
        &text("cpu"),
        &size(count),
        b"tQ",
        &size(offset),
        &sizes(shape),
        &sizes(strides),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ]
    .concat()
}

#[test]
fn the_hand_made_archive_is_fine_when_it_tells_the_truth() {
    let checkpoint = open_bytes(&pickle(&[
        b"}",
        &text("w"),
        &tensor("FloatStorage", 4, 0, &[2, 2], &[2, 1]),
        b"s",
    ]))
    .unwrap();
    let weights = checkpoint.weights().unwrap();
    assert_eq!(weights[0].0, "w");
    assert_eq!(checkpoint.tensor_f32(weights[0].1).unwrap(), [0.0; 4]);
}

#[test]
fn foreign_names_are_refused_by_every_instruction() {
    let long_call = b"cposix\nsystem\n(X\x02\x00\x00\x00idtR".as_slice();
    check_refused(open_bytes(&pickle(&[long_call])), "posix.system");
    check_refused(
        open_bytes(&pickle(&[b"cbuiltins\neval\n"])),
        "builtins.eval",
    );
    check_refused(
        open_bytes(&pickle(&[b"c__builtin__\ngetattr\n"])),
        "__builtin__.getattr",
    );
    let named = [text("os"), text("popen"), b"\x93".to_vec()].concat();
    check_refused(open_bytes(&pickle(&[&named])), "os.popen");
    check_refused(open_bytes(&pickle(&[b"(iposix\nsystem\n"])), "posix.system");
    check_refused(
        open_bytes(&pickle(&[b"(cposix\nsystem\no"])),
        "posix.system",
    );
    check_refused(
        open_bytes(&pickle(&[b"csubprocess\nPopen\n)\x81"])),
        "subprocess.Popen",
    );
    check_refused(
        open_bytes(&pickle(&[b"}cposix\nsystem\nb"])),
        "posix.system",
    );
    check_refused(open_bytes(&pickle(&[b"ctorch\nload\n"])), "torch.load");
    check_refused(
        open_bytes(&pickle(&[b"ctorch._utils\n_rebuild_wrapper_subclass\n"])),
        "_rebuild_wrapper_subclass",
    );
    check_refused(open_bytes(&pickle(&[b"\x82\x01"])), "extension registry");
    // Hidden in a key, in a tensor's hooks, deep in a container.
    check_refused(
        open_bytes(&pickle(&[b"}(cposix\nsystem\nK\x01u"])),
        "posix.system",
    );
    check_refused(
        open_bytes(&pickle(&[b"]((](cposix\nsystem\n"])),
        "posix.system",
    );
    // Dots do not lead from an allowed module to another name.
    let dotted = [text("torch"), text("_utils.sys.exit"), b"\x93".to_vec()].concat();
    check_refused(open_bytes(&pickle(&[&dotted])), "torch._utils.sys.exit");
    // A terminal shows no control characters of the file.
    check_refused(open_bytes(&pickle(&[b"c\x1b[2J\nx\n"])), "\u{fffd}[2J.x");
}

#[test]
fn allowed_names_do_only_what_they_are_for() {
    check_refused(
        open_bytes(&pickle(&[b"ccollections\nOrderedDict\n"])),
        "as a value",
    );
    check_refused(
        open_bytes(&pickle(&[b"ctorch\nFloatStorage\n)R"])),
        "wrong arguments",
    );
    check_refused(
        open_bytes(&pickle(&[
            b"c_codecs\nencode\n",
            &text("abc"),
            &text("rot13"),
            b"\x86R",
        ])),
        "wrong arguments",
    );
    check_refused(
        open_bytes(&pickle(&[b"cnumpy\ndtype\n", &text("O8"), b"\x85R"])),
        "arrays of O8 are not read",
    );
    check_refused(
        open_bytes(&pickle(&[b"]}b"])),
        "a state for something that has none",
    );
    check_refused(open_bytes(&pickle(&[&text("x"), b")R"])), "no function");
    check_refused(
        open_bytes(&pickle(&[
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R",
            b"(K\x01J\xff\xff\xff\x7f\x85cnumpy\ndtype\n",
            &text("f8"),
            b"\x85R\x89C\x08aaaaaaaatb",
        ])),
        "an array of shape [2147483647] in 8 bytes",
    );
}

#[test]
fn tensors_stay_within_their_storage() {
    let check = |class, count, offset, shape: &[i32], strides: &[i32], message| {
        check_refused(
            open_bytes(&pickle(&[&tensor(class, count, offset, shape, strides)])),
            message,
        );
    };
    check(
        "FloatStorage",
        4,
        0,
        &[5],
        &[1],
        "reaches beyond its 4 elements",
    );
    check(
        "FloatStorage",
        4,
        1,
        &[4],
        &[1],
        "reaches beyond its 4 elements",
    );
    check(
        "FloatStorage",
        4,
        0,
        &[2, 2],
        &[3, 1],
        "reaches beyond its 4 elements",
    );
    check(
        "FloatStorage",
        4,
        i32::MAX,
        &[1],
        &[1],
        "reaches beyond its 4 elements",
    );
    check("FloatStorage", 4, -1, &[1], &[1], "-1 where a size belongs");
    check("FloatStorage", 4, 0, &[-2], &[1], "-2 where a size belongs");
    check("FloatStorage", 4, 0, &[2], &[-1], "-1 where a size belongs");
    check(
        "FloatStorage",
        4,
        0,
        &[1_000_000_000],
        &[0],
        "share a place",
    );
    check("FloatStorage", 4, 0, &[3, 2], &[1, 1], "share a place");
    check("FloatStorage", 4, 0, &[2], &[], "cannot be");
    check("FloatStorage", 4, 0, &[1; 17], &[1; 17], "17 dimensions");
    check(
        "FloatStorage",
        4,
        0,
        &[i32::MAX; 3],
        &[i32::MAX; 3],
        "cannot be",
    );
    check(
        "FloatStorage",
        4,
        0,
        &[i32::MAX, i32::MAX, i32::MAX, 0],
        &[1; 4],
        "cannot be",
    );
    check(
        "FloatStorage",
        i32::MAX,
        0,
        &[1],
        &[1],
        "declares 2147483647 elements",
    );
    check(
        "FloatStorage",
        -1,
        0,
        &[1],
        &[1],
        "a storage of -1 elements",
    );
    check("FloatStorage", 3, 0, &[1], &[1], "but has 16 bytes");
    check(
        "ComplexFloatStorage",
        2,
        0,
        &[1],
        &[1],
        "torch.ComplexFloatStorage",
    );
    check_refused(
        open_bytes(&zip(&[entry(
            "archive/data.pkl",
            &[
                b"\x80\x02",
                tensor("FloatStorage", 4, 0, &[4], &[1]).as_slice(),
                b".",
            ]
            .concat(),
        )])),
        "storage 0 is missing",
    );
    let both = [
        tensor("FloatStorage", 4, 0, &[4], &[1]),
        tensor("IntStorage", 4, 0, &[4], &[1]),
        b"\x86".to_vec(),
    ];
    check_refused(open_bytes(&pickle(&[&both.concat()])), "described twice");
}

#[test]
fn containers_are_bounded() {
    // A list in itself.
    check_refused(
        open_bytes(&pickle(&[b"]q\x00h\x00a"])),
        "a container holds itself",
    );
    check_refused(
        open_bytes(&pickle(&[b"}q\x00K\x01h\x00s"])),
        "a container holds itself",
    );
    // Deep: lists in lists. No recursion of the machine, a clear end for its product.
    let deep = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    check_refused(open_bytes(&pickle(&[&deep])), "deeper than 64");
    check_refused(
        open_bytes(&pickle(&[b")", &vec![0x85; 100_000]])),
        "deeper than 64",
    );
    // A billion laughs: each list holds the one before ten times.
    let mut laughs = b"]q\x00".to_vec();
    for level in 0..30_u8 {
        laughs.extend(b"](");
        (0..10).for_each(|_| laughs.extend([b'h', level]));
        laughs.extend([b'e', b'q', level + 1]);
    }
    check_refused(
        open_bytes(&pickle(&[&laughs])),
        "share each other too often",
    );
    // Many small values: the memory is bounded by the file, not by what it asks for.
    let many = [b"(".to_vec(), vec![b']'; 4_000_000], b"t".to_vec()].concat();
    check_refused(
        open_bytes(&pickle(&[&many])),
        "more values than any checkpoint has",
    );
    check_refused(
        open_bytes(&pickle(&[b"}", &text("a"), b"Ns", &text("a"), b"Ns"])),
        "names a twice",
    );
}

#[test]
fn declared_lengths_do_not_become_memory() {
    check_refused(
        open_bytes(&pickle(&[b"X\xff\xff\xff\xff"])),
        "4294967295 bytes declared",
    );
    check_refused(
        open_bytes(&pickle(&[b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"])),
        "bytes declared",
    );
    check_refused(
        open_bytes(&pickle(&[b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff"])),
        "bytes declared",
    );
    check_refused(
        open_bytes(&pickle(&[b"\x95\xff\xff\xff\xff\xff\xff\xff\xff"])),
        "a frame of",
    );
    check_refused(
        open_bytes(&pickle(&[b"\x8b\xff\xff\xff\xff"])),
        "a whole number of",
    );
    check_refused(
        open_bytes(&pickle(&[b"r\xff\xff\xff\xff"])),
        "an empty stack",
    );
    check_refused(open_bytes(&pickle(&[b"h\x07"])), "nothing remembered as 7");
    check_refused(open_bytes(&pickle(&[b"e"])), "no mark");
    check_refused(open_bytes(&pickle(&[b"N(\x85"])), "an empty stack");
    check_refused(open_bytes(&pickle(&[b"(Nd"])), "a key without a value");
    check_refused(open_bytes(&pickle(&[b"I12\n"])), "the instruction I");
    check_refused(
        open_bytes(&with_pickle(b"\x80\x02N.N")),
        "bytes after the end",
    );
    check_refused(open_bytes(&with_pickle(b"\x80\x06N.")), "protocol 6");
    let endless = [b"c".to_vec(), vec![b'a'; 10_000]].concat();
    check_refused(open_bytes(&pickle(&[&endless])), "a line of more than 256");
}

#[test]
fn archives_that_lie_are_refused() {
    let good = || entry("archive/data.pkl", b"\x80\x02}.");
    let check = |entries: &[Entry], message| check_refused(open_bytes(&zip(entries)), message);
    assert!(open_bytes(&zip(&[good()])).is_ok());
    // Names that lead out (nothing is ever unpacked).
    check(&[good(), entry("archive/../../.bashrc", b"x")], "leads out");
    check(&[good(), entry("/etc/passwd", b"x")], "leads out");
    check(&[good(), entry("archive\\..\\x", b"x")], "leads out");
    check(&[good(), entry("other/x", b"x")], "several folders");
    check(&[good(), good()], "there twice");
    check(&[entry("data.pkl", b"\x80\x02}.")], "in no folder");
    check(&[entry("archive/readme", b"x")], "no data.pkl");
    check(&[good(), entry("archive/code/x.py", b"x")], "TorchScript");
    check(
        &[good(), entry("archive/byteorder", b"big")],
        "the byte order is big",
    );
    check(
        &[Entry {
            declared: 1 << 30,
            ..good()
        }],
        "declares 1073741824 bytes",
    );
    check(
        &[Entry {
            declared: u32::MAX,
            ..good()
        }],
        "a wide size is missing",
    );
    check(
        &[Entry {
            method: 8,
            ..good()
        }],
        "is compressed",
    );
    check(
        &[Entry {
            own_name: "archive/data.pkx".to_owned(),
            ..good()
        }],
        "another name",
    );
    check(
        &[Entry {
            header: Some(1),
            ..good()
        }],
        "has no header",
    );
    check(
        &[Entry {
            header: Some(u32::MAX - 9),
            ..good()
        }],
        "lies outside",
    );
    // Two entries in one place, and one within another.
    check(
        &[
            good(),
            Entry {
                header: Some(0),
                ..entry("archive/data.pkl", b"\x80\x02}.")
            },
        ],
        "overlap",
    );
    let inner = zip(&[entry("archive/inner", b"x")]);
    let outer = entry("archive/outer", &inner);
    let start = 30 + "archive/outer".len() as u32;
    check(
        &[
            outer,
            Entry {
                header: Some(start),
                ..entry("archive/inner", b"x")
            },
        ],
        "overlap",
    );
}

#[test]
fn a_directory_that_lies_is_refused() {
    let good = zip(&[entry("archive/data.pkl", b"\x80\x02}.")]);
    let end = good.len() - 22;
    let check = |at: usize, value: &[u8], message| {
        let mut bytes = good.clone();
        bytes[end + at..end + at + value.len()].copy_from_slice(value);
        check_refused(open_bytes(&bytes), message);
    };
    check(10, &[9, 0], "a directory of 9 entries");
    check(10, &[0, 0], "more entries than it counts");
    check(12, &[0xfe, 0xff, 0xff, 0x7f], "the directory lies outside");
    check(16, &[0xfe, 0xff, 0xff, 0xff], "the directory lies outside");
    check(4, &[1, 0], "several files");
    check(20, &[1, 0], "no directory at the end");
}

#[test]
fn files_cut_anywhere_are_refused() {
    for name in ["zip.pth", "legacy.pth", "bare.pt"] {
        let whole = std::fs::read(golden(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Checkpoint::open(&path).is_err(), "{name} cut to {length}");
        }
    }
}

/// Reads everything that can be read; must end, and without a panic.
fn read_all(bytes: &[u8]) {
    let Ok(checkpoint) = open_bytes(bytes) else {
        return;
    };
    for (name, tensor) in checkpoint.weights().unwrap_or_default() {
        assert!(tensor.count() <= bytes.len());
        let _ = checkpoint.weights_f32(name, tensor);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn altered_files_never_panic(
        legacy in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = std::fs::read(golden(if legacy { "legacy.pth" } else { "zip.pth" })).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes);
    }

    #[test]
    fn random_instructions_never_panic(
        code in proptest::collection::vec(
            prop_oneof![
                4 => prop::sample::select(b"()]}Nt\x85\x86\x87\x88aeusdq\x00h\x00\x94012RbQo\x81\x8f\x90\x91l".to_vec()),
                1 => any::<u8>(),
            ],
            0..200,
        ),
    ) {
        read_all(&pickle(&[&code]));
        read_all(&pickle(&[&tensor("FloatStorage", 4, 0, &[2], &[1]), &code]));
    }
}

#[test]
fn a_real_checkpoint_of_nnunet_is_read() {
    // A result folder made by tests/golden/nnunet/make.py; too large to keep.
    let Some(folder) = std::env::var_os("NEGATOSCOPE_NNUNET_DATA") else {
        println!("skipped: NEGATOSCOPE_NNUNET_DATA is not set");
        return;
    };
    let results = Path::new(&folder).join("results/Dataset404_Hippocampus");
    let mut seen = 0;
    for model in std::fs::read_dir(results).unwrap() {
        let path = model.unwrap().path().join("fold_0/checkpoint_final.pth");
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(
            checkpoint
                .root()
                .get("trainer_name")
                .and_then(Value::as_str),
            Some("nnUNetTrainer")
        );
        let weights = checkpoint.weights().unwrap();
        assert!(weights.len() > 20);
        for (name, tensor) in weights {
            checkpoint.weights_f32(name, tensor).unwrap();
        }
        seen += 1;
    }
    assert!(seen > 0);
}
