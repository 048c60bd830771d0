//! Loads the sensor on this machine, prints what it can see, and unloads it.
use sensor_agent::kernel::{Sensor, SensorConfig};

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "a tool for people")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scope = std::env::args().nth(1).map(Into::into);
    let sensor = Sensor::load(&SensorConfig {
        scope,
        ..SensorConfig::default()
    })?;
    println!("{:#?}\n{:?}", sensor.coverage(), sensor.loss());
    Ok(())
}
