"""The backend under label-studio-ml's own server; settings come from the environment."""

from label_studio_ml.api import init_app

from backend.http.security import protect
from backend.model import Sam3Backend, add_pages
from backend.settings_loader import read_settings

app = init_app(model_class=Sam3Backend)
protect(app, read_settings())
add_pages(app)
