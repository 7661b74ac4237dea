"""A robot with a free base for tests: a box on two pairs of legs, with all that is hard to batch.

Its feet are balls and the friction cones elliptic. MuJoCo and mujoco_warp turn the friction pyramid
under a capsule that stands within 30° of upright into different directions (MuJoCo along the
capsule, mujoco_warp along the world's axes), so with pyramids the two differ by far more than
round-off.
"""

import mujoco
import warp as wp

wp.config.optimization_level = 0  # kernels compile in half the time

XML = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.002" cone="elliptic" integrator="implicitfast"/>
  <default><joint axis="0 1 0" damping="0.05" armature="0.005" range="-1 1"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1" friction="0.8"/>
    <body name="base" pos="0 0 0.24">
      <freejoint name="base"/>
      <geom name="base" type="box" size="0.12 0.08 0.03" mass="2" contype="0" conaffinity="0"/>
      <site name="imu" pos="0.02 0 0"/>
      <body name="front" pos="0.1 0 0">
        <joint name="front"/>
        <geom type="capsule" fromto="0 0 0 0.03 0 -0.2" size="0.01" mass="0.1"
          contype="0" conaffinity="0"/>
        <geom name="front_left" pos="0.03 0.1 -0.21" size="0.025" mass="0.05"/>
        <geom name="front_right" pos="0.03 -0.1 -0.21" size="0.025" mass="0.05"/>
      </body>
      <body name="rear" pos="-0.1 0 0">
        <joint name="rear"/>
        <geom type="capsule" fromto="0 0 0 -0.03 0 -0.2" size="0.01" mass="0.1"
          contype="0" conaffinity="0"/>
        <geom name="rear_left" pos="-0.03 0.1 -0.21" size="0.025" mass="0.05"/>
        <geom name="rear_right" pos="-0.03 -0.1 -0.21" size="0.025" mass="0.05"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position name="front" joint="front" kp="12" kv="0.2" nsample="8" delay="0.01"/>
    <position name="rear" joint="rear" kp="12" kv="0.2"/>
  </actuator>
  <sensor>
    <jointpos name="front_position" joint="front" nsample="6" delay="0.006"/>
    <jointvel name="rear_velocity" joint="rear"/>
    <gyro name="gyro" site="imu"/>
    <accelerometer name="accelerometer" site="imu"/>
    <framepos name="imu" objtype="site" objname="imu"/>
  </sensor>
</mujoco>
"""


def load_walker() -> mujoco.MjModel:
    """The compiled model: nq 9, nv 8, nu 2."""
    return mujoco.MjModel.from_xml_string(XML)
