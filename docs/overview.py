"""Makes overview.png, the picture on the README's first screen, from what `camsweep demo` drew.

python docs/overview.py demo docs/overview.png
"""

import sys
from pathlib import Path

from PIL import Image, ImageSequence

demo, out = Path(sys.argv[1]), Path(sys.argv[2])
signal = Image.open(next((demo / "ecg/gradcam@stage3").glob("000001-*.png"))).convert("RGB")
digit = Image.open(next((demo / "digits/gradcam@features_9").glob("000005-*overlay.png"))).convert("RGB")
clip = Image.open(next((demo / "motion/gradcam@stage2").glob("000002-*.gif")))
frame = [frame.convert("RGB") for frame in ImageSequence.Iterator(clip)][6]

height, gap = 520, 24
signal = signal.resize((round(signal.width * height / signal.height), height), Image.Resampling.LANCZOS)
half = (height - gap) // 2
column = [
    part.resize((round(part.width * half / part.height), half), Image.Resampling.LANCZOS) for part in (digit, frame)
]
sheet = Image.new("RGB", (signal.width + gap + max(part.width for part in column), height), "white")
sheet.paste(signal, (0, 0))
for place, part in enumerate(column):
    sheet.paste(part, (signal.width + gap, place * (half + gap)))
sheet.save(out, optimize=True)
