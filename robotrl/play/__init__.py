"""`robotrl play`: watch policies and tasks, on a web page or in a video.

`session` is one world and who acts in it; `video` films it without a display; `viewer` shows it in
MuJoCo's studio viewer; `markers` draws what is asked for into either.
"""
