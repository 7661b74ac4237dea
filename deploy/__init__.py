"""Everything that runs on the robot; needs neither torch nor MuJoCo."""
