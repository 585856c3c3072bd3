"""Pictures of where every token came from, for any method, since they are drawn from its plan.

A `Trace` holds what a picture needs: the plans of one method, and heat maps if there are any. `contact_sheet` draws
traces side by side as a picture, `write_page` as a page in which pointing at a token lights up its sources::

    plan = build_compressor("nsp")(features).plan  # of features (64, 27, 27, D)
    contact_sheet(frames, [Trace.of("nsp", plan, (64, 27, 27))]).save("nsp.png")  # of frames (64, h, w, 3)
    write_page("nsp.html", frames, [Trace.of("nsp", plan, (64, 27, 27))])
"""

from stgridpool.show.page import write_page
from stgridpool.show.sheet import contact_sheet
from stgridpool.show.trace import HeatMap, Stage, Trace

__all__ = ["HeatMap", "Stage", "Trace", "contact_sheet", "write_page"]
