/* A sensor that lies on its side, turned by 90 degrees about x, and spins. */
#pragma once
#include "Arduino.h"

enum { SH2_GYROSCOPE_CALIBRATED = 2, SH2_GAME_ROTATION_VECTOR = 8 };
struct sh2_SensorValue_t {
  uint8_t sensorId;
  struct {
    struct { float x, y, z; } gyroscope;
    struct { float i, j, k, real; } gameRotationVector;
  } un;
};

struct Adafruit_BNO08x {
  int turn = 0;
  Adafruit_BNO08x(int) {}
  bool begin_I2C() { return true; }
  bool enableReport(uint8_t, uint32_t) { return true; }
  bool wasReset() { return false; }
  bool getSensorEvent(sh2_SensorValue_t *value) {
    static uint32_t last_us = 0;
    if (turn == 0 && micros() - last_us < 5000) return false;
    last_us = micros();
    turn = !turn;
    value->sensorId = turn ? SH2_GYROSCOPE_CALIBRATED : SH2_GAME_ROTATION_VECTOR;
    value->un.gyroscope = {0.1f, -0.2f, 0.3f};
    value->un.gameRotationVector = {0.70710678f, 0.0f, 0.0f, 0.70710678f};
    return true;
  }
};
