"""The shell for tf_keras, tensorflow-model-optimization and Hugging Face TF models."""
