import time
import numpy as np
from deploy.dynamixel import registers
from deploy.twin.port import VirtualClock
def test_a(bench):
    t=time.time(); q0=bench.twin.joint_position
    bench.robot.connect()
    print("connect virt",bench.clock.now(),"real",time.time()-t, "moved",np.abs(bench.twin.joint_position-q0).max(), bench.twin.joint_position-q0)
    t0=bench.clock.now()
    bench.robot.energise()
    print("energise virt",bench.clock.now()-t0)
    bench.wait(0.05)
    print(bench.twin.joint_position-q0)
    # move home
    home=np.array([0,-.2,.2,.2,0,.2])
    r=bench.robot
    s0=r.position.copy()
    t=time.time()
    for k in range(100):
        bench.clock.sleep_until(bench.clock.now()+0.01)
        r.read(bench.clock.now()+0.01)
        r.write(s0+(home-s0)*min(1,k/70))
    print("1s+ real",time.time()-t, bench.clock.now())
    print(bench.twin.joint_position)
    # reconnect while holding
    r.hold()
    q=bench.twin.joint_position.copy()
    r.connect(); 
    q1=bench.twin.joint_position.copy(); s=r.position.copy()
    print("fell in connect", q1-q)
    r.energise()
    print("fell in energise",bench.twin.joint_position-q)
    print("goal-sent", [(bench.get(j,registers.GOAL_POSITION)-2048)*registers.RAD_PER_TICK-s[i] for i,j in enumerate(bench.twin.joints)])
