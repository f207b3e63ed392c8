//! Slaney's mel scale (Auditory Toolbox, 1998), which librosa's and Whisper's filters have: linear below 1 kHz, logarithmic above.

const LINEAR_STEP_HZ: f64 = 200.0 / 3.0;
const BREAK_HZ: f64 = 1000.0;
const BREAK_MEL: f64 = BREAK_HZ / LINEAR_STEP_HZ;

fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

pub fn mel(hz: f64) -> f64 {
    match hz < BREAK_HZ {
        true => hz / LINEAR_STEP_HZ,
        false => BREAK_MEL + (hz / BREAK_HZ).ln() / log_step(),
    }
}

pub fn hz(mel: f64) -> f64 {
    match mel < BREAK_MEL {
        true => mel * LINEAR_STEP_HZ,
        false => BREAK_HZ * (log_step() * (mel - BREAK_MEL)).exp(),
    }
}
