"""The backend under label-studio-ml's own server; settings come from the environment."""

from label_studio_ml.api import init_app

from backend.http.security import protect
from backend.model import Sam3Backend, shared_service

app = init_app(model_class=Sam3Backend)
protect(app, shared_service().settings)
