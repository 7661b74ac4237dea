/* The microcontroller's side of robotrl's serial link: frames, deadman, latched stop.

   Portable C99 without malloc; of the C library it uses string.h alone. The board owns one
   `rl_link`, writes what it measures into it, and does what it says:

       rl_link link = {.joints = 2, .modes = RL_CAN(RL_VELOCITY), .firmware = 1};
       rl_begin(&link);
       for (;;) {
           while (available()) {
               uint16_t count = rl_receive(&link, read_byte(), micros());
               if (count) write_bytes(link.out, count);
           }
           rl_tick(&link, micros());                       // the deadman
           if (rl_drives(&link)) drive(link.target);       // in link.mode
           else let_go();
       }

   ../README.md is the wire format. Times are microseconds on the board's clock, which wraps. */

#ifndef ROBOTRL_LINK_H
#define ROBOTRL_LINK_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RL_VERSION 1
#define RL_MAX_JOINTS 16
#define RL_MAX_RAW 253 /* below 254 every COBS encoder gives the same bytes */
#define RL_MAX_WIRE (RL_MAX_RAW + 2)
#define RL_MAX_DEADMAN_MS 1000
#define RL_NEVER_US 0xFFFFFFFFu
#define RL_CAN(mode) (1u << (mode))

enum rl_type {
  RL_HELLO = 0x01,
  RL_WELCOME = 0x02,
  RL_POLL = 0x03,
  RL_STATE = 0x10,
  RL_COMMAND = 0x20,
  RL_STOP = 0x30,
  RL_CLEAR = 0x31,
};
enum rl_mode { RL_OFF = 0, RL_POSITION = 1, RL_VELOCITY = 2, RL_TORQUE = 3 };
enum rl_after { RL_LET_GO = 0, RL_HOLD = 1 };
enum rl_status { RL_WAITING = 0, RL_LIMP = 1, RL_DRIVEN = 2, RL_STOPPED = 3 };
enum rl_reason { RL_NONE = 0, RL_BY_HOST = 1, RL_SILENCE = 2, RL_PIN = 3, RL_FAULT = 4 };
enum rl_refusal {
  RL_ACCEPTED = 0,
  RL_NOT_GREETED = 1,
  RL_IS_STOPPED = 2,
  RL_WRONG_COUNT = 3,
  RL_WRONG_MODE = 4,
  RL_WRONG_DEADMAN = 5,
  RL_NOT_FINITE = 6,
};
enum rl_parts { RL_HAS_IMU = 1, RL_HAS_SUPPLY = 2, RL_MOTORS_ON = 4 };

typedef struct {
  float position, velocity, torque; /* rad, rad/s, N m; not a number: not measured */
} rl_joint;

typedef struct {
  /* What the board is; set before rl_begin. */
  uint8_t joints;
  uint8_t modes; /* RL_CAN(...) of each mode its joints obey */
  uint8_t parts; /* RL_HAS_IMU, RL_HAS_SUPPLY */
  uint16_t firmware;
  uint8_t uid[8];

  /* What it measures; write whenever there is something new. */
  rl_joint joint[RL_MAX_JOINTS];
  uint32_t joints_us;
  float angular_velocity[3]; /* rad/s, frame of the sensor */
  float gravity[3];          /* unit vector that points down, same frame */
  uint32_t imu_us;
  uint16_t supply_mv;
  bool joints_measured, imu_measured; /* set with the first measurement */

  /* What it is to do. */
  uint8_t status, reason, refused, mode, after;
  float target[RL_MAX_JOINTS];

  /* Counters. */
  uint16_t lost, damaged;

  /* Bytes to send when rl_receive returns a count. */
  uint8_t out[RL_MAX_WIRE];

  /* Private. */
  uint8_t in[RL_MAX_RAW + 1];
  uint16_t in_count, sent, heard;
  bool overlong, pin, greeted;
  uint32_t command_us, deadman_us, echo_us, heard_us;
} rl_link;

/* Forget everything but what the board is. */
void rl_begin(rl_link *link);

/* Take one byte; returns how many bytes of link->out are to be sent now, mostly none. */
uint16_t rl_receive(rl_link *link, uint8_t byte, uint32_t now_us);

/* Call at least every millisecond: without commands for the deadman's time the robot stops. */
void rl_tick(rl_link *link, uint32_t now_us);

/* Stop, latched until the host clears it: a fault the board has found. */
void rl_stop(rl_link *link, uint8_t reason);

/* The emergency stop's pin: while it is pressed, the stop cannot be cleared. */
void rl_pin(rl_link *link, bool pressed);

/* Whether the motors are on: driven by the host, or held after a stop that says so. A held joint
   keeps its position target; velocity and torque targets are zero by then. */
bool rl_drives(const rl_link *link);

/* The codec, as the tests use it. COBS without the delimiter; `to` has room for count + 2 bytes.
   rl_cobs_decode works in place too, and returns -1 for what is no COBS. */
uint16_t rl_crc16(const uint8_t *data, uint16_t count);
uint16_t rl_cobs_encode(const uint8_t *from, uint16_t count, uint8_t *to);
int rl_cobs_decode(const uint8_t *from, uint16_t count, uint8_t *to);

#ifdef __cplusplus
}
#endif
#endif
