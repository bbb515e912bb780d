"""The components of AWS that an inspector needs beside ours: for credentials and for logs, by kind of nucleus.

Source: AWS IoT Greengrass V2 developer guide, AWS-provided components.
"""

from typing import Any, Literal

CREDENTIALS = "aws.greengrass.TokenExchangeService"
FORWARDER = "aws.greengrass.SystemLogForwarder"  # lite: logs go to the journal, and from there to CloudWatch
LOG_MANAGER = "aws.greengrass.LogManager"  # classic: sends the log files of the components that it is told of
MAJOR = 2  # of the versions that are taken


def stock_components(nucleus: Literal["lite", "classic"], inspector: str) -> dict[str, dict[str, Any]]:
    """Name to the configuration that is merged when the component is new in a deployment; empty = its defaults.

    Args:
        nucleus: on the devices.
        inspector: name of the line's inspector component, whose logs are sent.
    """
    if nucleus == "lite":
        return {CREDENTIALS: {}, FORWARDER: {}}
    logs = {
        "logsUploaderConfiguration": {
            "systemLogsConfiguration": {"uploadToCloudWatch": "true", "minimumLogLevel": "INFO"},
            "componentLogsConfigurationMap": {
                inspector: {"minimumLogLevel": "INFO", "diskSpaceLimit": "10", "diskSpaceLimitUnit": "MB"}
            },
        }
    }
    return {CREDENTIALS: {}, LOG_MANAGER: logs}
