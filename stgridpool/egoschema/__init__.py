"""Submissions to EgoSchema's validation server: checked before they are sent, and the scores that come back."""
