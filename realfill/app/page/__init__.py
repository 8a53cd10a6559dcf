"""The web page: visits, their photos and jobs, and the server. It calls the library and computes nothing itself."""
