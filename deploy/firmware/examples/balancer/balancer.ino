/* The balancer (envs/robots/balancer): two XL330-M077 and a BNO085 behind one microcontroller.

   Boards    Any with two serial ports besides USB: ESP32-S3, Teensy 4, RP2040 (earlephilhower core).
   Libraries Dynamixel2Arduino (ROBOTIS), Adafruit BNO08x.
   Wiring    servos  DATA  <- the half-duplex circuit of ROBOTIS' e-Manual (74LVC2G241, direction on
                             DIRECTION_PIN) at Serial1; 5 V and ground from the converter
             BNO085  SDA, SCL, 3.3 V, ground; x of the sensor forward, z up
             stop    STOP_PIN to ground through a button that opens when pressed (normally closed):
                     a broken wire stops too
             host    USB
   Servos    ids 0 and 1 (left, right), 1 Mbaud, set once with DYNAMIXEL Wizard; zero at 2048.

   The loop never waits longer than one exchange with a servo, so the deadman is looked at in time.
   Two more watchdogs catch what it cannot: the servos' own stops them when the board falls silent,
   and WATCHDOG_FEED below resets a board that hangs. */

#include <Adafruit_BNO08x.h>
#include <Dynamixel2Arduino.h>
#include <Wire.h>

#include "robotrl_link.h"

#ifdef ARDUINO_ARCH_ESP32
#include <esp_task_wdt.h>
#define WATCHDOG_START() esp_task_wdt_add(NULL)
#define WATCHDOG_FEED() esp_task_wdt_reset()
#elif defined(ARDUINO_ARCH_RP2040)
#define WATCHDOG_START() rp2040.wdt_begin(200)
#define WATCHDOG_FEED() rp2040.wdt_reset()
#else /* Teensy: the library Watchdog_t4 */
#define WATCHDOG_START()
#define WATCHDOG_FEED()
#endif

static const uint8_t DIRECTION_PIN = 2, STOP_PIN = 3, WHEELS = 2;
static const uint8_t IDS[WHEELS] = {0, 1};
static const float RAD_S_PER_COUNT = 0.229f * 6.28318531f / 60.0f;
static const float RAD_PER_COUNT = 6.28318531f / 4096.0f;
static const int32_t ZERO = 2048, MAX_COUNTS = 2047;
static const uint8_t SERVO_WATCHDOG = 5; /* of 20 ms */
static const uint32_t SERVOS_EVERY_US = 2000;

Dynamixel2Arduino servos(Serial1, DIRECTION_PIN);
Adafruit_BNO08x imu(-1);
rl_link board;
bool driving = false, imu_found = false;

static void drive(bool on) {
  for (uint8_t i = 0; i < WHEELS; i++) {
    if (on != driving) {
      servos.writeControlTableItem(ControlTableItem::BUS_WATCHDOG, IDS[i], 0);
      if (on) servos.torqueOn(IDS[i]);
      else servos.torqueOff(IDS[i]);
      if (on) servos.writeControlTableItem(ControlTableItem::BUS_WATCHDOG, IDS[i], SERVO_WATCHDOG);
    }
    if (on) {
      int32_t counts = (int32_t)lroundf(board.target[i] / RAD_S_PER_COUNT);
      counts = counts > MAX_COUNTS ? MAX_COUNTS : counts < -MAX_COUNTS ? -MAX_COUNTS : counts;
      servos.writeControlTableItem(ControlTableItem::GOAL_VELOCITY, IDS[i], counts);
    }
  }
  driving = on;
}

static void measure_wheels(void) {
  for (uint8_t i = 0; i < WHEELS; i++) {
    int32_t both[2]; /* speed and position lie side by side, at 128 */
    if (servos.read(IDS[i], 128, sizeof both, (uint8_t *)both, sizeof both, 2) != sizeof both) {
      return; /* what did not come grows old, and the host sees that */
    }
    board.joint[i].velocity = both[0] * RAD_S_PER_COUNT;
    board.joint[i].position = (both[1] - ZERO) * RAD_PER_COUNT;
    board.joint[i].torque = NAN;
  }
  board.joints_us = micros();
  board.joints_measured = true;
}

static void measure_imu(void) {
  static bool turned = false, spun = false;
  sh2_SensorValue_t value;
  if (imu.wasReset()) imu_found = false; /* its age grows: the host stops */
  while (imu_found && imu.getSensorEvent(&value)) {
    if (value.sensorId == SH2_GYROSCOPE_CALIBRATED) {
      board.angular_velocity[0] = value.un.gyroscope.x;
      board.angular_velocity[1] = value.un.gyroscope.y;
      board.angular_velocity[2] = value.un.gyroscope.z;
      spun = true;
    } else if (value.sensorId == SH2_GAME_ROTATION_VECTOR) {
      const float w = value.un.gameRotationVector.real, x = value.un.gameRotationVector.i;
      const float y = value.un.gameRotationVector.j, z = value.un.gameRotationVector.k;
      board.gravity[0] = 2 * (w * y - x * z); /* minus the rotation matrix's last row */
      board.gravity[1] = -2 * (w * x + y * z);
      board.gravity[2] = 2 * (x * x + y * y) - 1;
      turned = true;
    }
    if (turned && spun) {
      board.imu_us = micros();
      board.imu_measured = true;
      turned = spun = false;
    }
  }
}

void setup() {
  Serial.begin(1000000);
  pinMode(STOP_PIN, INPUT_PULLUP);
  servos.begin(1000000);
  servos.setPortProtocolVersion(2.0);
  for (uint8_t i = 0; i < WHEELS; i++) {
    servos.torqueOff(IDS[i]);
    servos.setOperatingMode(IDS[i], OP_VELOCITY);
    servos.writeControlTableItem(ControlTableItem::RETURN_DELAY_TIME, IDS[i], 0);
    servos.writeControlTableItem(ControlTableItem::VELOCITY_LIMIT, IDS[i], MAX_COUNTS);
    servos.writeControlTableItem(ControlTableItem::VELOCITY_P_GAIN, IDS[i], 400);
    servos.writeControlTableItem(ControlTableItem::VELOCITY_I_GAIN, IDS[i], 0);
  }
  Wire.begin();
  Wire.setClock(400000);
  imu_found = imu.begin_I2C() && imu.enableReport(SH2_GYROSCOPE_CALIBRATED, 5000) &&
              imu.enableReport(SH2_GAME_ROTATION_VECTOR, 5000);
  if (imu_found) imu.wasReset(); /* the one of switching on */

  board.joints = WHEELS;
  board.modes = RL_CAN(RL_VELOCITY);
  board.parts = imu_found ? RL_HAS_IMU | RL_HAS_SUPPLY : RL_HAS_SUPPLY;
  board.firmware = 1;
  memcpy(board.uid, "balancer", sizeof board.uid);
  rl_begin(&board);
  WATCHDOG_START();
}

void loop() {
  static uint32_t wheels_us = 0, supply_us = 0;
  WATCHDOG_FEED();
  rl_pin(&board, digitalRead(STOP_PIN) == HIGH);
  while (Serial.available()) {
    const uint16_t count = rl_receive(&board, (uint8_t)Serial.read(), micros());
    if (count) Serial.write(board.out, count);
  }
  rl_tick(&board, micros());
  measure_imu();
  if (micros() - wheels_us < SERVOS_EVERY_US) return;
  wheels_us = micros();
  drive(rl_drives(&board));
  measure_wheels();
  if (micros() - supply_us > 100000) {
    supply_us = micros();
    const int32_t tenths =
        servos.readControlTableItem(ControlTableItem::PRESENT_INPUT_VOLTAGE, IDS[0]);
    board.supply_mv = (uint16_t)(tenths > 0 ? 100 * tenths : 0);
  }
}
