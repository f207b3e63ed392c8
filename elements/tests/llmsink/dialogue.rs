//! Questions, answers and everything between them.

use gst::prelude::*;

use crate::bench::*;

const QUESTION: &str = "What is the biggest animal in the world?";

#[test]
fn a_typed_question_is_answered() {
    let mut bench = Bench::play(&["text"], "max-tokens=20");
    bench.write(QUESTION, 0);
    bench.write("  \n", 10);
    bench.end(&["text"]);
    let told = bench.until_end();
    let answer = told.last().unwrap();
    assert_eq!(answer.name(), "vita-answer");
    assert_eq!(answer.get("turn"), Ok(1u64));
    assert_eq!(answer.get("generation"), Ok(1u64));
    assert_eq!(answer.get::<&str>("question"), Ok("text"));
    assert_eq!(answer.get::<&str>("text"), Ok(QUESTION));
    assert_eq!(answer.get::<&str>("state"), Ok("text"));
    assert!(!answer.has_field("utterance-id") && !answer.has_field("staleness"));
    assert_eq!(answer.get::<&str>("answer").unwrap(), words(&told, 1));
    assert!(answer.get::<u64>("prompt-tokens").unwrap() > 100);
    let names = names(&told);
    assert_eq!(
        names[..3],
        ["vita-query", "vita-roles-swapped", "vita-delta"]
    );
    let ends = names.iter().filter(|name| **name == "vita-answer").count();
    assert_eq!(ends, 1, "an empty line is no question");
}

#[test]
fn a_spoken_question_is_answered_from_what_was_seen() {
    let settings = format!("max-tokens=10 logit-bias={QUERY}");
    let mut bench = Bench::play(&["video", "audio"], &settings);
    bench.show(10, 1500);
    bench.show(60, 2500);
    // Frames and utterances come by different threads.
    while bench.stat("frames") < 2 {
        std::thread::yield_now();
    }
    bench.say(5, 3000);
    bench.end(&["video", "audio"]);
    let told = bench.until_end();
    let answer = told.last().unwrap();
    assert_eq!(answer.name(), "vita-answer");
    assert_eq!(answer.get::<&str>("question"), Ok("speech"));
    assert_eq!(answer.get::<&str>("state"), Ok("query"));
    assert_eq!(answer.get("utterance-id"), Ok(5u64));
    assert_eq!(answer.get("start-stream-time"), Ok(2_000_000_000u64));
    assert_eq!(answer.get("end-stream-time"), Ok(3_000_000_000u64));
    assert_eq!(answer.get("capture-time"), Ok(1_700_000_000_000_000_005u64));
    assert_eq!(answer.get("staleness"), Ok(500_000_000u64));
    let frames = answer.get::<gst::Array>("frames").unwrap();
    let frames: Vec<(u64, u32)> = frames
        .iter()
        .map(|frame| {
            let frame = frame.get::<gst::Structure>().unwrap();
            (
                frame.get("stream-time").unwrap(),
                frame.get("repeat").unwrap(),
            )
        })
        .collect();
    assert_eq!(frames, [(1_500_000_000, 3), (2_500_000_000, 1)]);
    let probability = |name| answer.get::<f64>(name).unwrap();
    assert!(probability("query-probability") > probability("noise-probability"));
}

#[test]
fn a_question_interrupts_and_noise_does_not() {
    let settings = format!("max-tokens=4000 logit-bias={NOISE_ENDLESS}");
    let mut bench = Bench::play(&["audio"], &settings);
    bench.sink.set_property("logit-bias", QUERY_ENDLESS);
    assert_eq!(bench.ask(QUESTION), 1);
    bench.until("vita-delta");
    bench.sink.set_property("logit-bias", NOISE_ENDLESS);
    bench.say(1, 2000);
    let noise = bench.until("vita-noise");
    assert_eq!(noise.get::<&str>("reason"), Ok("judged"));
    assert_eq!(noise.get("utterance-id"), Ok(1u64));
    assert_eq!(bench.stat("generation"), 1, "it goes on");

    bench.sink.set_property("logit-bias", QUERY_ENDLESS);
    bench.say(2, 4000);
    let interrupted = bench.until("vita-interrupted");
    assert_eq!(interrupted.get("generation"), Ok(1u64));
    assert_eq!(interrupted.get("by-turn"), Ok(3u64));
    let answer = bench.until("vita-answer");
    assert_eq!(answer.get::<&str>("cut-off"), Ok("interrupted"));
    assert_eq!(answer.get::<&str>("answer").unwrap(), words(&bench.told, 1));
    let dead = bench.told.len();
    assert_eq!(bench.until("vita-query").get("generation"), Ok(2u64));
    bench.until("vita-roles-swapped");
    bench.until("vita-delta");
    bench.sink.emit_by_name::<()>("reset", &[]);
    let answer = bench.until("vita-answer");
    assert_eq!(answer.get::<&str>("cut-off"), Ok("reset"));
    bench.until("vita-reset");
    assert_eq!(words(&bench.told[dead..], 1), "");
    assert_eq!(bench.stat("history-turns"), 0);
    bench.end(&["audio"]);
    bench.until_end();
}

#[test]
fn two_sinks_share_the_model_and_closing_one_leaves_the_other() {
    let settings = format!("max-tokens=1500 logit-bias={QUERY_ENDLESS}");
    let mut stays = Bench::play(&["text"], &settings);
    let mut goes = Bench::play(&["text"], &settings);
    let model = model();
    let model = std::sync::Arc::downgrade(&model);
    stays.write(QUESTION, 0);
    goes.write("Why is the sky blue?", 0);
    stays.until("vita-delta");
    goes.until("vita-delta");
    assert!(goes.stat("sequences-running") >= 1);
    goes.pipeline.set_state(gst::State::Null).unwrap();
    stays.end(&["text"]);
    let told = stays.until_end();
    let answer = told.last().unwrap();
    assert_eq!(answer.get::<&str>("cut-off"), Ok("max-tokens"));
    assert_eq!(answer.get("tokens"), Ok(1500u64));
    assert!(model.upgrade().is_some());
}

#[test]
fn what_is_no_medium_or_no_text_is_an_error_that_says_so() {
    let launch = |source: &str| {
        init();
        let text = format!(
            "{source} ! vitallmsink name=sink model={}",
            checkpoint().display()
        );
        let pipeline = gst::parse::launch(&text).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let wanted = [gst::MessageType::Error, gst::MessageType::Eos];
        let bus = pipeline.bus().unwrap();
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let message = bus.timed_pop_filtered(patience, &wanted).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            panic!("{message:?}")
        };
        error.error().to_string()
    };
    let tensors = "other/tensors,format=static,num_tensors=1,types=float32,dimensions=128:1:1:1,framerate=0/1";
    let error = launch(&format!(
        "fakesrc num-buffers=1 sizetype=fixed sizemax=512 ! {tensors}"
    ));
    assert!(error.contains("a buffer without VitaMediaMeta"), "{error}");
    let random = "fakesrc num-buffers=1 sizetype=fixed sizemax=4096 filltype=random";
    let error = launch(&format!("{random} ! text/x-raw,format=utf8"));
    assert!(
        error.contains("text that is no UTF-8") || error.is_empty(),
        "{error}"
    );
}

#[test]
fn a_question_without_a_verdict_in_time_is_cancelled_counted_and_warned_of() {
    let mut bench = Bench::play(&["text"], "max-wait=1");
    bench.write(QUESTION, 0);
    let cancelled = bench.until("vita-cancelled");
    assert_eq!(cancelled.get::<&str>("reason"), Ok("judging-timed-out"));
    assert_eq!(cancelled.get::<&str>("text"), Ok(QUESTION));
    let warning = bench.warning();
    assert!(warning.contains("no verdict within max-wait"), "{warning}");
    assert_eq!(bench.stat("questions-overdue"), 1);
    bench.end(&["text"]);
    assert_eq!(names(&bench.until_end()), ["vita-cancelled"]);
}

#[test]
fn an_utterance_that_the_encoder_dropped_is_a_cancelled_question() {
    let settings = format!("max-tokens=4 logit-bias={QUERY}");
    let mut bench = Bench::play(&["audio"], &settings);
    bench.say(6, 2000);
    bench.until("vita-answer");
    let dropped = gst::Structure::builder("vita-dropped")
        .field("kind", "audio")
        .field("utterance-id", 7u64)
        .field("reason", "stale")
        .field("start-stream-time", ms(2500))
        .field("end-stream-time", ms(3500))
        .build();
    let pad = bench.source("audio").static_pad("src").unwrap();
    assert!(pad.push_event(gst::event::CustomDownstream::new(dropped)));
    let cancelled = bench.until("vita-cancelled");
    assert_eq!(cancelled.get("turn"), Ok(2u64));
    assert_eq!(cancelled.get("utterance-id"), Ok(7u64));
    assert_eq!(cancelled.get::<&str>("reason"), Ok("stale"));
    assert_eq!(cancelled.get("end-stream-time"), Ok(3_500_000_000u64));
    // Questions are still numbered as the dialogue counts them.
    assert_eq!(bench.ask(QUESTION), 3);
    assert_eq!(bench.until("vita-answer").get("turn"), Ok(3u64));
}

#[test]
fn what_is_remembered_stays_within_its_budget() {
    let mut bench = Bench::play(
        &["text"],
        "max-tokens=4 kv-cache-mib=1 history-tokens=0 precision=bf16",
    );
    for number in 0..20 {
        bench.ask(&format!("{number}. {QUESTION}"));
        bench.until("vita-answer");
        let held = bench.stat("kv-cache-bytes");
        assert!(held > 0 && held <= 1 << 20, "{held} bytes");
    }
    assert!(bench.stat("prefixes-evicted") > 0);
}
