/* The firmware on this computer: a shared library for tests in their own time, and a program that
   is a board on an open terminal, in real time:

       board FILE_DESCRIPTOR CLOCK_AHEAD_US CLOCK_GAINS_PPM

   Its joints are ideal: positions and speeds become what is asked for. */

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "robotrl_link.h"

static rl_link board;

void board_begin(uint8_t joints, uint8_t modes, uint8_t parts) {
  memset(&board, 0, sizeof board);
  board.joints = joints;
  board.modes = modes;
  board.parts = parts;
  board.firmware = 7;
  memcpy(board.uid, "balancer", 8);
  rl_begin(&board);
}

uint16_t board_receive(const uint8_t *data, uint16_t count, uint32_t now_us, uint8_t *replies) {
  uint16_t size = 0;
  for (uint16_t i = 0; i < count; i++) {
    uint16_t reply = rl_receive(&board, data[i], now_us);
    memcpy(replies + size, board.out, reply);
    size = (uint16_t)(size + reply);
  }
  return size;
}

void board_tick(uint32_t now_us) { rl_tick(&board, now_us); }
void board_pin(bool pressed) { rl_pin(&board, pressed); }
void board_stop(uint8_t reason) { rl_stop(&board, reason); }
bool board_drives(void) { return rl_drives(&board); }
uint8_t board_mode(void) { return board.mode; }
const float *board_target(void) { return board.target; }

void board_measure(const float *joints, const float *imu, uint16_t supply_mv, uint32_t now_us) {
  for (int i = 0; i < board.joints; i++)
    board.joint[i] = (rl_joint){joints[3 * i], joints[3 * i + 1], joints[3 * i + 2]};
  memcpy(board.angular_velocity, imu, sizeof board.angular_velocity);
  memcpy(board.gravity, imu + 3, sizeof board.gravity);
  board.supply_mv = supply_mv;
  board.joints_us = board.imu_us = now_us;
  board.joints_measured = board.imu_measured = true;
}

static double ahead_us, gains;

static uint32_t micros(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  double us = 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
  return (uint32_t)(uint64_t)(us + us * gains + ahead_us);
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  int port = atoi(arguments[1]);
  ahead_us = atof(arguments[2]);
  gains = 1e-6 * atof(arguments[3]);
  board_begin(2, RL_CAN(RL_POSITION) | RL_CAN(RL_VELOCITY), RL_HAS_IMU | RL_HAS_SUPPLY);
  static const float imu[6] = {0.1f, -0.2f, 0.3f, 0.6f, 0.0f, -0.8f};
  for (;;) {
    struct pollfd ready = {.fd = port, .events = POLLIN};
    poll(&ready, 1, 1);
    uint32_t now_us = micros();
    float joints[6];
    for (int i = 0; i < 2; i++) {
      float target = rl_drives(&board) ? board.target[i] : 0.0f;
      joints[3 * i] = board.mode == RL_POSITION ? target : 0.0f;
      joints[3 * i + 1] = board.mode == RL_VELOCITY ? target : 0.0f;
      joints[3 * i + 2] = NAN; /* not measured */
    }
    board_measure(joints, imu, 7400, now_us);
    if (ready.revents & POLLIN) {
      uint8_t data[256];
      ssize_t size = read(port, data, sizeof data);
      if (size <= 0) return 0;
      for (ssize_t i = 0; i < size; i++) {
        uint16_t reply = rl_receive(&board, data[i], now_us);
        if (reply && write(port, board.out, reply) != reply) return 1;
      }
    }
    rl_tick(&board, now_us);
    if (ready.revents & POLLHUP) return 0;
  }
}
