"""Driving load: closed and open loop, and the recorder of what each request took."""
