# What can be imported from stgridpool.adapters; __init__.py loads each when it is first asked for.
from .adapter import Adapter as Adapter
from .adapter import EncodedVisual as EncodedVisual
from .compress_inputs import compress_inputs as compress_inputs
from .families import adapter_for as adapter_for
from .prompt import CompressedPrompt as CompressedPrompt
from .prompt import write_prompt as write_prompt
from .video_questions import VideoQuestions as VideoQuestions
from .visual_runs import CompressedVisual as CompressedVisual
from .visual_runs import VisualRun as VisualRun
from .visual_runs import compress_run as compress_run
from .visual_runs import visual_runs as visual_runs
