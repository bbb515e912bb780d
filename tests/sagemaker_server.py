"""SageMaker's model registry and S3 on loopback: moto, made stricter, whose answers a test may replace.

moto takes requests that the service would refuse, and an update replaces the metadata where the service merges them.
Here each request is held against botocore's own description of the service, and updates merge unless a test wants
moto's way.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from moto.sagemaker.models import SageMakerModelBackend, sagemaker_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from rest_json import shape_faults
from wsgi_server import serve

ACCOUNT, REGION = "123456789012", "eu-central-1"
Answer = tuple[int, str, str] | None  # status, code and message of an error instead of the server's own answer
PHRASES = {400: "Bad Request", 403: "Forbidden", 429: "Too Many Requests", 500: "Internal Server Error"}


class SageMakerServer:
    """The server as a WSGI application.

    Attributes:
        answer: gives the error that replaces the answer to (operation, parameters); None lets the request through.
        after: is called with (operation, parameters) when the request was carried out, before the answer goes out.
        loses: whether the answer to (operation, parameters) is lost on its way, though the request was carried out.
        merges: an update keeps what it does not name, as the service does.
        asked: operations and parameters of all requests to SageMaker, in order.
        refused: what was wrong with requests that the service would not have taken.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._model = botocore.session.get_session().get_service_model("sagemaker")
        self.reset()

    def reset(self) -> None:
        """Forget what the last test wanted."""
        self.answer: Callable[[str, dict[str, Any]], Answer] = lambda operation, parameters: None
        self.after: Callable[[str, dict[str, Any]], None] = lambda operation, parameters: None
        self.loses: Callable[[str, dict[str, Any]], bool] = lambda operation, parameters: False
        self._created: dict[str, list[bytes]] = {}  # answers by ClientToken: a repeated one creates nothing
        self.merges = True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refused: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        service, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")
        if service != "SageMaker":
            return self._app(environ, start_response)
        parameters = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.asked.append((operation, parameters))
        answer = self.answer(operation, parameters)
        faults = list(shape_faults(parameters, self._model.operation_model(operation).input_shape))
        if operation == "CreateModelPackage" and "Tags" in parameters and "ModelPackageGroupName" in parameters:
            faults.append("Tags: a version of a group has those of the group")
        if answer is None and faults:
            self.refused += faults
            answer = 400, "ValidationException", "; ".join(faults)
        if answer is not None:
            status, code, message = answer
            body = json.dumps({"__type": code, "message": message}).encode()
            headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-errortype", code)]
            start_response(f"{status} {PHRASES[status]}", [*headers, ("Content-Length", str(len(body)))])
            return [body]
        if operation == "UpdateModelPackage" and self.merges:
            parameters = _merged(parameters)
        body = json.dumps(parameters).encode()
        token = parameters.get("ClientToken", "")
        if token in self._created:
            start_response("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
            return self._created[token]
        said: list[tuple[Any, ...]] = []
        answered = list(
            self._app(
                environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))},
                lambda *status_and_headers: said.append(status_and_headers),
            )
        )
        if token and said[-1][0].startswith("200"):
            self._created[token] = answered
        self.after(operation, parameters)
        if self.loses(operation, parameters):
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        start_response(*said[-1])
        return answered

    def count(self, operation: str) -> int:
        """How often an operation was asked for."""
        return sum(1 for name, _ in self.asked if name == operation)


def backend(region: str = REGION) -> SageMakerModelBackend:
    """What moto holds of one region."""
    return sagemaker_backends[ACCOUNT][region]


def _merged(parameters: dict[str, Any]) -> dict[str, Any]:
    package = backend().model_packages[parameters["ModelPackageArn"]]
    kept = {"ModelApprovalStatus": package.model_approval_status, "ApprovalDescription": package.approval_description}
    metadata = {**(package.customer_metadata_properties or {}), **parameters.get("CustomerMetadataProperties", {})}
    return {name: value for name, value in kept.items() if value is not None} | {
        **parameters,
        "CustomerMetadataProperties": metadata,
    }


@contextmanager
def serve_sagemaker() -> Iterator[tuple[SageMakerServer, str]]:
    """The server and its address."""
    application = SageMakerServer()
    with serve(application) as address:
        yield application, address
