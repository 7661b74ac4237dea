"""What walking is made of, whatever the robot; the task is `envs.tasks.velocity`.

`legs` tells how base and feet move, `gait` when each foot should be down, `features` what the actor
sees, `terms` what is rewarded, and `score` how well a command was followed.
"""
