"""Where parts come from: folders, cameras, network streams, triggers. Import from the modules; `opening` opens any."""
